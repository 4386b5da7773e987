// SPDX-License-Identifier: Apache-2.0
// A client cannot forge its address, nor the fields that the proxy sets. It cannot avoid the log, and it cannot change
// the route of a path.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "conf/model.h"
#include "conf/model/listener.h"
#include "conf/model/node.h"
#include "conf/model/route.h"
#include "core/crypto.h"
#include "tests/unit/l7/support.h"

namespace tidegate::l7::test::forgery_test {

// An edge that logs. Its log can be read after the edge is destroyed.
class LoggingEdge {
 public:
  LoggingEdge() { edge->model.nodes[0].l7.access_log = path_; }
  ~LoggingEdge() { std::filesystem::remove(path_); }
  std::vector<nlohmann::json> lines() {
    edge.reset();  // writes the remaining lines
    std::vector<nlohmann::json> out;
    std::ifstream file(path_);
    for (std::string line; std::getline(file, line);) {
      longest = std::max(longest, line.size());
      out.push_back(nlohmann::json::parse(line, nullptr, false));
      EXPECT_FALSE(out.back().is_discarded()) << line.substr(0, 400);
    }
    return out;
  }
  size_t longest = 0;

 private:
  const std::string path_ = std::filesystem::temp_directory_path() / ("tidegate-l7-log-" + hex_encode(random_bytes(8)));

 public:
  std::unique_ptr<Edge> edge = std::make_unique<Edge>();
};

Route answers(const std::string& name, const std::string& path, uint16_t status) {
  Route route;
  route.name = name;
  route.path = path;
  route.what = RouteAnswer{status, {}};
  return route;
}

TEST(Forgery, AnUnreadableHopDoesNotMakeTheClientsOwnEntryBelieved) {
  const std::pair<const char*, const char*> chains[] = {
      {"6.6.6.6, 203.0.113.9:51234", "203.0.113.9"},
      {"6.6.6.6, [2001:db8::1]:443", "2001:db8::1"},
      {"6.6.6.6, [2001:db8::1]", "2001:db8::1"},
      {"6.6.6.6, 2001:DB8:0::1", "2001:db8::1"},
      {"6.6.6.6, ::ffff:203.0.113.9", "203.0.113.9"},
      {"6.6.6.6, unknown", "127.0.0.1"},
      {"6.6.6.6, _hidden", "127.0.0.1"},
      {"6.6.6.6,", "127.0.0.1"},
      {"6.6.6.6, , 127.0.0.9", "127.0.0.9"},
      {"6.6.6.6, \"x, 203.0.113.9", "203.0.113.9"},
      {"6.6.6.6, unix:", "127.0.0.1"},
      {"6.6.6.6, 203.0.113.9", "203.0.113.9"},
      {"203.0.113.9, 127.0.0.7", "203.0.113.9"},
      {"127.0.0.8, 127.0.0.7", "127.0.0.8"},
  };
  LoggingEdge logging;
  logging.edge->model.listeners[0].trusted_proxies = {*Cidr::parse("127.0.0.0/8")};
  logging.edge->model.routes = {answers("r", "/*", 204)};
  logging.edge->start();
  for (const auto& [chain, client] : chains) {
    ask(logging.edge->endpoint(), get("/", "a.test", "X-Forwarded-For: " + std::string(chain) + "\r\n"));
  }
  const std::vector<nlohmann::json> lines = logging.lines();
  ASSERT_EQ(lines.size(), std::size(chains));
  for (size_t i = 0; i < lines.size(); ++i) EXPECT_EQ(lines[i]["client"], chains[i].second) << chains[i].first;
}

TEST(Forgery, NothingThatAClientSendsKeepsItsRequestOutOfTheLog) {
  LoggingEdge logging;
  logging.edge->model.routes = {answers("r", "/*", 204)};
  logging.edge->start();
  const std::string requests[] = {
      get("/agent", "a.test", "User-Agent: " + std::string(4'100, '\xe9') + "\r\n"),
      get("/query?" + std::string(4'200, '"')),
      get("/path" + std::string(8'000, '"')),
      get("/", std::string(8'000, 'h')),
      get("/?" + std::string(3'900, '"'), "a.test", "User-Agent: " + std::string(20'000, '\xe9') + "\r\n"),
      get("/plain?q=1", "a.test", "User-Agent: curl/7.88.1\r\n"),
  };
  for (const std::string& request : requests) ask(logging.edge->endpoint(), request);
  EXPECT_EQ(logging.edge->metric("tidegate_l7_log_lines_dropped_total"), 0u);
  const std::vector<nlohmann::json> lines = logging.lines();
  ASSERT_EQ(lines.size(), std::size(requests));
  EXPECT_EQ(lines[0]["path"], "/agent");
  EXPECT_EQ(lines[0]["cut"], nlohmann::json::array({"user_agent"}));
  EXPECT_EQ(lines[0]["user_agent"].get<std::string>().substr(0, 4), "éé");
  EXPECT_EQ(lines[1]["cut"], nlohmann::json::array({"query"}));
  EXPECT_EQ(lines[2]["cut"], nlohmann::json::array({"path"}));
  EXPECT_EQ(lines[2]["path"].get<std::string>().substr(0, 6), "/path\"");
  EXPECT_EQ(lines[4]["cut"], nlohmann::json::array({"query", "user_agent"}));
  EXPECT_FALSE(lines[5].contains("cut"));
  EXPECT_EQ(lines[5]["query"], "q=1");
  EXPECT_EQ(lines[5]["user_agent"], "curl/7.88.1");
  EXPECT_LE(logging.longest, 16u * 1024);
}

TEST(Forgery, LinesThatTheDiskDoesNotTakeAreCountedAndAnotherFileGetsWholeOnes) {
  constexpr size_t kRequests = 400;  // each takes 8 kB in the log; together more than a ring holds
  const std::string path = std::filesystem::temp_directory_path() / ("tidegate-l7-full-" + hex_encode(random_bytes(8)));
  std::filesystem::create_symlink("/dev/full", path);
  Edge edge;
  edge.model.nodes[0].l7.access_log = path;
  edge.model.routes = {answers("r", "/*", 204)};
  edge.start();
  Wire wire = Wire::connect(edge.endpoint());
  const std::string request =
      get("/" + std::string(4'000, 'x'), "a.test", "User-Agent: " + std::string(4'000, 'y') + "\r\n");
  for (size_t i = 0; i < kRequests; ++i) {
    wire.send(request);
    EXPECT_EQ(read_answer(wire).status, 204);
  }
  const uint64_t dropped = edge.metric("tidegate_l7_log_lines_dropped_total");
  EXPECT_GT(dropped, 0u);
  EXPECT_LT(dropped, kRequests);
  std::filesystem::remove(path);  // an operator puts a file in its place
  std::ofstream(path).close();
  const auto text = [&path] {
    std::ifstream file(path);
    return std::string(std::istreambuf_iterator<char>(file), {});
  };
  EXPECT_TRUE(edge.run_until([&] {
    const std::string written = text();
    return static_cast<size_t>(std::count(written.begin(), written.end(), '\n')) == kRequests - dropped;
  }));
  std::istringstream written(text());
  for (std::string line; std::getline(written, line);) {
    EXPECT_FALSE(nlohmann::json::parse(line, nullptr, false).is_discarded());
  }
  std::filesystem::remove(path);
}

TEST(Forgery, FieldsThatAnApplicationReadsAsOnesThatTheProxySetsAreDropped) {
  std::string seen;
  Origin origin([&](const std::string& head, Wire& wire) {
    seen = head;
    return wire.send(Origin::ok("x"));
  });
  Edge edge;
  edge.add_route("/*", edge.add_pool("p", {origin.endpoint()})).request_headers = {{"X-User-Role", "guest"}};
  edge.start();
  const std::string forged[] = {"X_Forwarded_For",  "X-Forwarded_For",   "X_Real_IP",   "x_request_id",
                                "X_Forwarded_Port", "X_Forwarded_Proto", "X_User_Role", "X.User.Role",
                                "Content_Length",   "Transfer_Encoding", "_Host_",      "Via_"};
  std::string fields = "X_Mine: kept\r\nX-Api_Key: kept\r\n";
  for (const std::string& name : forged) fields += name + ": 6\r\n";
  EXPECT_EQ(ask(edge.endpoint(), get("/", "a.test", fields)).status, 200);
  for (size_t i = 0; i < 10; ++i) {
    std::string lower = forged[i];
    for (char& c : lower) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    EXPECT_EQ(seen.find("\r\n" + lower + ": "), std::string::npos) << lower;
  }
  EXPECT_NE(seen.find("\r\nx_mine: kept\r\n"), std::string::npos) << seen;
  EXPECT_NE(seen.find("\r\nx-api_key: kept\r\n"), std::string::npos);
  EXPECT_NE(seen.find("\r\nvia_: 6\r\n"), std::string::npos) << "HTTP_VIA_ is another";
  EXPECT_EQ(edge.metric("tidegate_l7_fields_dropped_total"), 10u);
}

TEST(Forgery, EveryFieldThatSaysWhereARequestCameFromIsDropped) {
  std::string seen;
  Origin origin([&](const std::string& head, Wire& wire) {
    seen = head;
    return wire.send(Origin::ok("x"));
  });
  Edge edge;
  edge.add_route("/*", edge.add_pool("p", {origin.endpoint()}));
  edge.start();
  const std::string forged[] = {"x-forwarded-by",   "x-forwarded-ip", "x-forwarded-a", "x-forwarded-port",
                                "x-forwarded-user", "x-real-ip",      "forwarded",     "x-original-url"};
  std::string fields = "x-forwarder: kept\r\n";
  for (const std::string& name : forged) fields += name + ": 6\r\n";
  EXPECT_EQ(ask(edge.endpoint(), get("/", "a.test", fields)).status, 200);
  for (const std::string& name : forged) EXPECT_EQ(seen.find("\r\n" + name + ": "), std::string::npos) << seen;
  EXPECT_NE(seen.find("\r\nx-forwarder: kept\r\n"), std::string::npos) << seen;
}

TEST(Forgery, ADenyRouteIsNotPassedByAnotherSpellingOfItsPath) {
  Origin origin([](const std::string& head, Wire& wire) {
    return wire.send(Origin::ok(head.substr(4, head.find(" HTTP") - 4)));
  });
  Edge edge;
  edge.model.routes = {answers("deny", "/admin/*", 403)};
  edge.add_route("/*", edge.add_pool("p", {origin.endpoint()}));
  edge.start();
  for (const char* path : {"/admin/x", "//admin/x", "/.//admin/x", "///admin///x", "/admin//x", "/%2e//admin/x",
                           "/a/..//admin/x", "//admin/", "/./admin/x", "/%61dmin/x"}) {
    EXPECT_EQ(ask(edge.endpoint(), get(path)).status, 403) << path;
  }
  // The origin gets the path as it was sent.
  EXPECT_EQ(ask(edge.endpoint(), get("/files//a///b?u=http://c")).body, "/files//a///b?u=http://c");
  // Readers differ about these, so they are refused.
  for (const char* path : {"/admin\\x", "/public/..;/admin/x", "/public/..;a=b/admin/x", "/.;/admin/x"}) {
    EXPECT_EQ(ask(edge.endpoint(), get(path)).status, 400) << path;
  }
  // The router and the origin both take these as data of one segment.
  for (const char* path :
       {"/admin%2Fx", "/admin%5Cx", "/admin;x=/y", "/@scope%2Fname", "/app/page;jsessionid=1", "/..x;/y"}) {
    EXPECT_EQ(ask(edge.endpoint(), get(path)).body, path) << path;
  }
}

TEST(Forgery, AListenerMayKeepSuchFieldsAndTellSlashesApart) {
  std::string seen;
  Origin origin([&](const std::string& head, Wire& wire) {
    seen = head;
    return wire.send(Origin::ok("x"));
  });
  Edge edge;
  edge.model.listeners.push_back(edge.model.listeners[0]);
  Listener& keeping = edge.model.listeners.back();
  keeping.name = "keeping";
  keeping.bind = {*Endpoint::parse("127.0.0.2:0")};
  keeping.merge_slashes = false;
  keeping.underscores_in_headers = true;
  edge.model.routes = {answers("deny", "/admin/*", 403)};
  edge.add_route("/*", edge.add_pool("p", {origin.endpoint()})).request_headers = {{"X-User-Role", "guest"}};
  edge.start();
  const std::string forged = "X_Forwarded_For: 6.6.6.6\r\nX_User_Role: root\r\nX-User-Role: root\r\n";
  EXPECT_EQ(ask(edge.endpoint(1), get("//admin/x", "a.test", forged)).status, 200);
  EXPECT_NE(seen.find("\r\nx_forwarded_for: 6.6.6.6\r\n"), std::string::npos) << seen;
  EXPECT_NE(seen.find("\r\nx_user_role: root\r\n"), std::string::npos);
  EXPECT_EQ(seen.find("\r\nx-user-role: root\r\n"), std::string::npos) << "the operator's own edit holds";
  EXPECT_EQ(edge.metric("tidegate_l7_fields_dropped_total"), 0u);
  const auto explained = [&](const std::string& listener_port) {
    HttpRequest request;
    request.query = "url=http://a.test:" + listener_port + "//admin/x";
    return (*edge.proxy().explain(request))["route"];
  };
  EXPECT_EQ(explained("1"), "deny") << "the first listener of its kind merges";
}

TEST(Forgery, AHostHasOneSpelling) {
  Edge edge;
  edge.model.routes = {answers("deny", "/*", 403), answers("any", "/*", 204)};
  edge.model.routes[0].hosts = {"inner.a.test"};
  edge.start();
  for (const char* host : {"inner.a.test", "INNER.a.TEST", "inner.a.test.", "inner.a.test:80", "inner.a.test.:80"}) {
    EXPECT_EQ(ask(edge.endpoint(), get("/", host)).status, 403) << host;
  }
  for (const char* host : {"inner.a.test..", ".inner.a.test", "inner..a.test", "."}) {
    EXPECT_EQ(ask(edge.endpoint(), get("/", host)).status, 400) << host;
  }
  EXPECT_EQ(ask(edge.endpoint(), get("/", "other.a.test")).status, 204);
}

}  // namespace tidegate::l7::test::forgery_test
