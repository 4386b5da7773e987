// The proxy and its cache: what a purge by URL takes, and who waits for whom.
#include <gtest/gtest.h>

#include <filesystem>
#include <future>
#include <memory>
#include <nlohmann/json.hpp>

#include "core/crypto.h"
#include "l7/proxy.h"
#include "tests/unit/l7/support.h"

namespace tidegate::l7::test {
namespace {

Purge purge_of(std::string url, uint64_t sequence = 0) {
  Purge purge;
  purge.sequence = sequence;
  purge.kind = PurgeKind::url;
  purge.value = std::move(url);
  return purge;
}

Origin::Handler fresh() {
  return [](const std::string&, Wire& wire) { return wire.send(Origin::ok("x", "Cache-Control: max-age=600\r\n")); };
}

// A directory that goes with the test.
struct StateDir {
  StateDir() { std::filesystem::create_directories(path); }
  ~StateDir() { std::filesystem::remove_all(path); }
  const std::string path = std::filesystem::temp_directory_path() / ("tidegate-l7-" + hex_encode(random_bytes(8)));
};

// An edge that caches the routes it is given so.
struct CachingEdge : Edge {
  explicit CachingEdge(const StateDir& state) {
    state_dir = state.path;
    model.nodes[0].cache.enabled = true;
    pool = add_pool("p", {origin.endpoint()});
  }
  Route& cached(const std::string& path) {
    Route& route = add_route(path, pool);
    route.cache.enabled = true;
    return route;
  }
  // Whether the origin was asked for it.
  bool fetches(std::string_view target, std::string_view host = "a.test") {
    const size_t before = origin.requests();
    EXPECT_EQ(ask(endpoint(), get(target, host)).status, 200);
    return origin.requests() > before;
  }

  Origin origin{fresh()};
  uint32_t pool = 0;
};

// Larger than what may be stored, and its length is not told: it passes through memory alone.
TEST(ProxyFill, AClientThatReadsNothingDoesNotHoldUpThoseWhoReadTheSameForEver) {
  constexpr size_t kPieces = 48, kPieceBytes = 1 << 20;
  const std::string piece = "100000\r\n" + std::string(kPieceBytes, 'x') + "\r\n";
  std::promise<void> both_read;
  const auto go_on = both_read.get_future().share();
  Origin origin([&](const std::string&, Wire& wire) {
    bool sent = wire.send("HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nTransfer-Encoding: chunked\r\n\r\n");
    sent = sent && wire.send(piece);
    go_on.wait();
    for (size_t i = 1; i < kPieces && sent; ++i) sent = wire.send(piece);
    return sent && wire.send("0\r\n\r\n");
  });
  const StateDir state;
  Edge edge;
  edge.state_dir = state.path;
  edge.model.nodes[0].cache.enabled = true;
  edge.model.nodes[0].cache.max_object_bytes = kPieceBytes;
  edge.add_route("/*", edge.add_pool("p", {origin.endpoint()})).cache.enabled = true;
  edge.start();
  Wire leader = Wire::connect(edge.endpoint());
  leader.send(get("/large"));
  EXPECT_NE(leader.read_until("\r\n\r\n").find("200 OK"), std::string::npos);
  Wire reader = Wire::connect(edge.endpoint());
  reader.send(get("/large", "a.test", "Connection: close\r\n"));
  EXPECT_NE(reader.read_until("\r\n\r\n").find("200 OK"), std::string::npos);
  both_read.set_value();
  const std::string read = reader.read_to_end();
  EXPECT_GE(read.size(), kPieces * kPieceBytes);
  EXPECT_TRUE(read.ends_with("\r\n0\r\n\r\n"));
  EXPECT_EQ(origin.requests(), 1U) << "they read one fetch";
  EXPECT_LT(leader.read_to_end().size(), kPieces * kPieceBytes) << "it is told, by the end of its connection";
  EXPECT_EQ(edge.metric("tidegate_cache_laggards_total"), 1U);
}

TEST(ProxyPurge, TakesWhatTheRouteMadeOfTheQuery) {
  const StateDir state;
  CachingEdge edge(state);
  edge.cached("/id").cache.key_query = {"id"};
  edge.cached("/none").cache.ignore_query = true;
  edge.cached("/*");
  edge.start();
  for (const char* target : {"/id?id=1&utm=2", "/id?id=2", "/none?a=1", "/all?a=1", "/all?a=2"}) {
    EXPECT_TRUE(edge.fetches(target)) << target;
    EXPECT_FALSE(edge.fetches(target)) << target;
  }
  edge.proxy().purge(purge_of("http://a.test/id?utm=3&id=1"));
  EXPECT_TRUE(edge.fetches("/id?id=1"));
  EXPECT_FALSE(edge.fetches("/id?id=2"));
  edge.proxy().purge(purge_of("http://a.test/none?b=2"));
  EXPECT_TRUE(edge.fetches("/none"));
  edge.proxy().purge(purge_of("http://a.test/all?a=1"));
  EXPECT_TRUE(edge.fetches("/all?a=1"));
  EXPECT_FALSE(edge.fetches("/all?a=2"));
}

TEST(ProxyPurge, TakesEverySpellingOfTheSameUrl) {
  const StateDir state;
  CachingEdge edge(state);
  edge.cached("/*");
  edge.start();
  const auto refetched = [&](const std::string& url, std::string_view target, std::string_view host) {
    edge.fetches(target, host);
    EXPECT_FALSE(edge.fetches(target, host)) << url;
    edge.proxy().purge(purge_of(url));
    return edge.fetches(target, host);
  };
  EXPECT_TRUE(refetched("http://a.test/caf%c3%a9", "/caf%C3%A9", "a.test"));
  EXPECT_TRUE(refetched("http://a.test/%7Euser/./x", "/~user/x", "a.test"));
  EXPECT_TRUE(refetched("http://a.test", "/", "a.test"));
  EXPECT_TRUE(refetched("HTTP://A.test:80/b#part", "/b", "a.test"));
  EXPECT_TRUE(refetched("http://a.test./c", "/c", "a.test"));
  EXPECT_TRUE(refetched("http://a.test/d", "/d", "a.test."));
  EXPECT_TRUE(refetched("http://a.test.:8080/e", "/e", "a.test:8080"));
  EXPECT_TRUE(refetched("http://[::1]:80/f", "/f", "[::1]"));
  EXPECT_FALSE(refetched("http://b.test/g", "/g", "a.test"));
  EXPECT_FALSE(refetched("https://a.test/h", "/h", "a.test"));
  EXPECT_FALSE(refetched("http://a.test/%zz", "/i", "a.test"));
}

TEST(ProxyPurge, ReachesWhatIsOnDiskBeforeTheFirstVersionIsInForce) {
  const StateDir state;
  const auto make = [&state] {
    auto edge = std::make_unique<CachingEdge>(state);
    edge->cached("/id").cache.key_query = {"id"};
    return edge;
  };
  {
    const auto edge = make();
    edge->start();
    EXPECT_TRUE(edge->fetches("/id?id=1"));
    EXPECT_TRUE(edge->fetches("/id?id=2"));
  }
  const auto edge = make();
  edge->missed = {purge_of("http://a.test/id?utm=1&id=1", 1)};
  edge->start();
  ASSERT_TRUE(edge->run_until([&] {  // until the index is read, a miss says nothing
    nlohmann::json status;
    edge->proxy().add_status(status);
    return status["cache"]["loading"] == false;
  }));
  EXPECT_TRUE(edge->fetches("/id?id=1"));
  EXPECT_FALSE(edge->fetches("/id?id=2"));
}

}  // namespace
}  // namespace tidegate::l7::test
