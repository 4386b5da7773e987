// SPDX-License-Identifier: Apache-2.0
// The compress policy: what clients of the proxy see.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <thread>

#include "conf/model.h"
#include "conf/model/node.h"
#include "conf/model/policy.h"
#include "conf/policy/authenticate.h"
#include "core/http_server.h"
#include "tests/unit/l7/compressing_edge.h"

namespace tidegate::l7::test::compress_test {

class CompressTest : public CompressingEdge {};

TEST_F(CompressTest, EachCodingIsSentAsItsDecoderReadsIt) {
  page_.fields = "ETag: \"v1\"\r\nAccept-Ranges: bytes\r\nVary: Accept\r\n";
  start();
  for (const Coding coding : {Coding::gzip, Coding::br, Coding::zstd}) {
    const std::string accept = std::string("Accept-Encoding: ") + name(coding) + "\r\n";
    const Answer answer = get_page(accept);
    EXPECT_EQ(answer.status, 200);
    EXPECT_EQ(answer.field("content-encoding"), name(coding));
    EXPECT_EQ(answer.field("content-length"), "");
    EXPECT_EQ(answer.field("transfer-encoding"), "chunked");
    EXPECT_EQ(answer.field("etag"), "w/\"v1\"");
    EXPECT_EQ(answer.field("accept-ranges"), "");
    EXPECT_NE(answer.head.find("\r\nvary: accept-encoding\r\n"), std::string::npos) << answer.head;
    EXPECT_NE(answer.head.find("\r\nvary: accept\r\n"), std::string::npos) << answer.head;
    EXPECT_LT(answer.body.size(), page_.body.size() / 2);
    EXPECT_TRUE(decoded(coding, answer.body) == page_.body);
    const std::string labels = std::string("{policy=\"small\",coding=\"") + name(coding) + "\"}";
    EXPECT_EQ(edge_.metric("tidegate_l7_compress_answers_total" + labels), 1u);
    EXPECT_EQ(edge_.metric("tidegate_l7_compress_bytes_in_total" + labels), page_.body.size());
    EXPECT_EQ(edge_.metric("tidegate_l7_compress_bytes_out_total" + labels), answer.body.size());

    // HEAD gets the same as GET.
    Wire wire = Wire::connect(edge_.endpoint());
    wire.send("HEAD / HTTP/1.1\r\nHost: a\r\n" + accept + "\r\n");
    const Answer head = read_answer(wire, true);
    EXPECT_EQ(head.field("content-encoding"), name(coding));
    EXPECT_EQ(head.field("content-length"), "");
    EXPECT_EQ(head.field("etag"), "w/\"v1\"");
    wire.send(get("/", "a"));
    expect_as_it_is(read_answer(wire), "nothing followed the answer to HEAD");
  }
  const Answer plain = get_page("");
  expect_as_it_is(plain, "the client asks for nothing");
  EXPECT_EQ(plain.field("etag"), "\"v1\"");
  EXPECT_NE(plain.head.find("\r\nvary: accept-encoding\r\n"), std::string::npos) << "caches must know";
  EXPECT_EQ(left("not_asked"), 4u);
}

TEST_F(CompressTest, ClientsOfHttp10AndHttp2GetItWithTheirFraming) {
  start();
  const Answer old =
      ask(edge_.endpoint(), "GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\nAccept-Encoding: gzip\r\n\r\n");
  EXPECT_EQ(old.field("connection"), "close") << "its end is the connection's";
  EXPECT_EQ(old.field("transfer-encoding"), "");
  EXPECT_TRUE(decoded(Coding::gzip, old.body) == page_.body);
  for (const Coding coding : {Coding::gzip, Coding::br, Coding::zstd}) {
    Http2Client client(edge_.endpoint());
    const StreamResult answer = get_over_http2(client, coding);
    EXPECT_EQ(answer.fields.at("content-encoding"), name(coding));
    EXPECT_EQ(answer.fields.count("content-length"), 0u);
    EXPECT_TRUE(decoded(coding, answer.body) == page_.body);
  }
}

TEST_F(CompressTest, LargeContentStreamsThroughASmallClient) {
  page_.body = noise(700'000, 5) + words(700'000, 6);
  start();
  for (const Coding coding : {Coding::gzip, Coding::br, Coding::zstd}) {
    Wire wire = Wire::connect(edge_.endpoint(), 16 * 1024);
    wire.send(get("/", "a", std::string("Accept-Encoding: ") + name(coding) + "\r\n"));
    const Answer answer = read_answer(wire);
    ASSERT_TRUE(answer.complete);
    EXPECT_TRUE(decoded(coding, answer.body) == page_.body);
    Http2Client client(edge_.endpoint());
    EXPECT_TRUE(decoded(coding, get_over_http2(client, coding).body) == page_.body);
  }
}

TEST_F(CompressTest, WhatMayNotBeCompressedIsLeftAsItIs) {
  start();
  const std::string gzip = "Accept-Encoding: gzip\r\n";
  const Page usual = page_;
  const auto left_as_it_is = [&](const std::string& why, const std::function<void(Page&)>& change,
                                 const std::string& fields = "") {
    page_ = usual;
    change(page_);
    const Answer answer = get_page(gzip + fields);
    EXPECT_TRUE(answer.body == page_.body) << why;
    EXPECT_EQ(answer.field("content-length"), std::to_string(page_.body.size())) << why;
    return answer;
  };
  left_as_it_is("a coding", [](Page& page) { page.fields = "Content-Encoding: br\r\n"; });
  left_as_it_is("a digest", [](Page& page) { page.fields = "Repr-Digest: sha-256=:AAAA:\r\n"; });
  EXPECT_EQ(left("coded"), 2u);
  left_as_it_is("no-transform", [](Page& page) { page.fields = "Cache-Control: max-age=1, No-Transform\r\n"; });
  EXPECT_EQ(left("no_transform"), 1u);
  left_as_it_is(
      "the client's own no-transform", [](Page&) {}, "Cache-Control: no-transform\r\n");
  EXPECT_EQ(left("not_asked"), 1u);
  left_as_it_is("small", [](Page& page) { page.body.resize(1'023); });
  EXPECT_EQ(left("small"), 1u);
  EXPECT_EQ(left_as_it_is("a picture", [](Page& page) { page.type = "image/png"; }).field("vary"), "");
  const Answer part = left_as_it_is(
      "a part",
      [](Page& page) {
        page.status = "206 Partial Content";
        page.fields = "Content-Range: bytes 0-19999/30000\r\nETag: \"v1\"\r\n";
      },
      "Range: bytes=0-19999\r\n");
  EXPECT_EQ(part.status, 206);
  EXPECT_EQ(part.field("etag"), "\"v1\"");
  EXPECT_EQ(part.field("vary"), "accept-encoding");
  left_as_it_is(
      "BREACH", [](Page&) {}, "Authorization: Bearer x\r\n");
  EXPECT_EQ(left("authenticated"), 1u);
  page_ = usual;
  page_.fields = "Cache-Control: public, max-age=60\r\n";
  EXPECT_EQ(get_page(gzip + "Authorization: Bearer x\r\n").field("content-encoding"), "gzip") << "public";
  page_ = usual;
  page_.fields = "Content-Encoding: identity\r\n";
  EXPECT_EQ(get_page(gzip).field("content-encoding"), "gzip") << "identity is no coding";
  page_ = usual;
  page_.body.resize(1'024);
  EXPECT_EQ(get_page(gzip).field("content-encoding"), "gzip") << "as large as the minimum";
}

// Nothing in the request shows its sender: the forward service has identified the client by other means.
TEST_F(CompressTest, WhatAuthenticateHasLetInIsLeftAsItIs) {
  auto part = std::make_shared<AuthenticatePolicy>();
  part->optional = true;
  edge_.model.policies.push_back({"who", true, {{"authenticate", part}}});
  start();
  expect_as_it_is(get_page("Accept-Encoding: gzip\r\n"), "BREACH");
  EXPECT_EQ(left("authenticated"), 1u);
  page_.fields = "Cache-Control: public\r\n";
  EXPECT_EQ(get_page("Accept-Encoding: gzip\r\n").field("content-encoding"), "gzip");
}

TEST_F(CompressTest, TypesCodingsAndTheMinimumAreThoseOfTheKeys) {
  page_.type = "application/vnd.shop+json";
  page_.body = words(100, 1);
  start([](CompressPolicy& part) {
    part.types = {"application/*+json"};
    part.codings = {"gzip", "br"};
    part.minimum = 0;
  });
  EXPECT_EQ(get_page("Accept-Encoding: zstd, br, gzip\r\n").field("content-encoding"), "gzip");
  EXPECT_EQ(get_page("Accept-Encoding: zstd\r\n").field("content-encoding"), "");
  page_.body.clear();
  EXPECT_EQ(get_page("Accept-Encoding: gzip\r\n").field("content-encoding"), "") << "nothing";
  page_.body = words(5'000, 1);
  page_.type = "text/html";
  EXPECT_EQ(get_page("Accept-Encoding: gzip\r\n").field("content-encoding"), "");
}

// A 304 keeps the client's own validator, and the cache answers it.
TEST_F(CompressTest, HitsAreCompressedForEachClientAndRevalidateByTheWeakTag) {
  page_.fields = "ETag: \"v1\"\r\nCache-Control: max-age=600\r\n";
  start({}, true);
  for (const char* coding : {"gzip", "br", "zstd", "gzip"}) {
    const Answer answer = get_page(std::string("Accept-Encoding: ") + coding + "\r\n");
    EXPECT_EQ(answer.field("content-encoding"), coding);
    EXPECT_TRUE(decoded(*parse_coding(coding), answer.body) == page_.body);
  }
  expect_as_it_is(get_page(""), "what is stored is as it came");
  EXPECT_EQ(origin_.requests(), 1u);
  const Answer weak = get_page("Accept-Encoding: gzip\r\nIf-None-Match: \"v0\", W/\"v1\"\r\n");
  EXPECT_EQ(weak.status, 304);
  EXPECT_EQ(weak.field("etag"), "w/\"v1\"");
  EXPECT_EQ(weak.field("vary"), "accept-encoding");
  const Answer strong = get_page("If-None-Match: \"v1\"\r\n");
  EXPECT_EQ(strong.status, 304);
  EXPECT_EQ(strong.field("etag"), "\"v1\"");
  const Answer part = get_page("Accept-Encoding: gzip\r\nRange: bytes=5-9\r\n");
  EXPECT_EQ(part.status, 206);
  EXPECT_EQ(part.body, page_.body.substr(5, 5));
  EXPECT_EQ(part.field("content-encoding"), "");
  EXPECT_EQ(origin_.requests(), 1u);
}

// Each event reaches the client before the next one is sent.
TEST_F(CompressTest, EventsArriveAsTheyAreSent) {
  for (const bool cached : {false, true}) {
    std::atomic<int> read{0};
    Origin events([&](const std::string&, Wire& wire) {
      const std::string cache = cached ? "Cache-Control: max-age=60\r\n" : "";
      wire.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n" + cache + "\r\n");
      for (int i = 0; i < 5; ++i) {
        wire.send("data: " + std::to_string(i) + "\n\n");
        while (read.load() <= i) std::this_thread::yield();
      }
      return false;
    });
    const StateDir state;
    Edge edge;
    edge.model.policies.push_back({"small", true, {{"compress", std::make_shared<CompressPolicy>()}}});
    if (cached) {
      edge.state_dir = state.path;
      edge.model.nodes[0].cache.enabled = true;
    }
    edge.add_route("/*", edge.add_pool("p", {events.endpoint()})).cache.enabled = cached;
    edge.start();
    for (const Coding coding : {Coding::gzip, Coding::br, Coding::zstd}) {
      read = 0;
      Wire wire = Wire::connect(edge.endpoint());
      wire.send("GET /" + std::string(name(coding)) + " HTTP/1.0\r\nHost: a\r\nAccept-Encoding: " + name(coding) +
                "\r\n\r\n");
      EXPECT_NE(wire.read_until("\r\n\r\n").find(std::string("Content-Encoding: ") + name(coding)), std::string::npos);
      Decoder decoder(coding);
      for (int i = 0; i < 5; ++i) {
        const std::string mark = "data: " + std::to_string(i) + "\n\n";
        while (!decoder.text.ends_with(mark)) {
          const std::string bytes = wire.read_some();
          ASSERT_FALSE(bytes.empty()) << "event " << i;
          ASSERT_TRUE(decoder.feed(bytes));
        }
        ++read;
      }
      ASSERT_TRUE(decoder.feed(wire.read_to_end()) && decoder.ended());
    }
  }
}

// If a client leaves or a backend breaks off, the encoder is returned, and no client considers the answer complete.
TEST_F(CompressTest, ABodyThatBreaksOffIsNotEndedAsWhole) {
  Origin broken([](const std::string&, Wire& wire) {
    wire.send("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 50000\r\n\r\n" + words(30'000, 1));
    return false;
  });
  edge_.model.policies.push_back({"small", true, {{"compress", std::make_shared<CompressPolicy>()}}});
  edge_.add_route("/*", edge_.add_pool("p", {broken.endpoint()}));
  edge_.start();
  for (int i = 0; i < 3; ++i) {
    const Answer answer = get_page("Accept-Encoding: gzip\r\n");
    EXPECT_EQ(answer.field("content-encoding"), "gzip");
    EXPECT_FALSE(answer.complete);
  }
  EXPECT_EQ(edge_.metric("tidegate_l7_failures_total{reason=\"backend_truncated\"}"), 3u);
}

TEST_F(CompressTest, ManySlowClientsLeaveTheOthersUncompressed) {
  std::atomic<bool> over{false};
  Origin endless([&](const std::string&, Wire& wire) {
    wire.send("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\nbegun");
    over.wait(false);
    return false;
  });
  edge_.add_route("/endless", edge_.add_pool("endless", {endless.endpoint()})).policies = {0};
  start();
  std::vector<Wire> slow;
  for (size_t i = 0; i < kWorkerEncoders; ++i) {
    slow.push_back(Wire::connect(edge_.endpoint()));
    slow.back().send(get("/endless", "a", "Accept-Encoding: gzip\r\n"));
    EXPECT_NE(slow.back().read_until("\r\n\r\n").find("Content-Encoding: gzip"), std::string::npos);
  }
  const Answer answer = get_page("Accept-Encoding: gzip\r\n");
  expect_as_it_is(answer, "no encoder is free");
  EXPECT_EQ(answer.field("vary"), "accept-encoding");
  EXPECT_EQ(left("no_room"), 1u);
  over = true;
  over.notify_all();
  slow.clear();
  EXPECT_TRUE(
      edge_.run_until([&] { return get_page("Accept-Encoding: gzip\r\n").field("content-encoding") == "gzip"; }));
}

TEST_F(CompressTest, ExplainTellsWhatAClientWouldGet) {
  start([](CompressPolicy& part) { part.codings = {"br", "gzip"}; });
  HttpRequest request;
  request.query = "client=192.0.2.1&url=http://a.test/";
  const nlohmann::json entry = (*edge_.proxy().explain(request))["policies"][0];
  EXPECT_EQ(entry["kind"], "compress");
  EXPECT_EQ(entry["coding"], "identity") << "explain's request has no Accept-Encoding";
  EXPECT_EQ(entry["codings"], nlohmann::json({"br", "gzip"}));
  EXPECT_EQ(entry["minimum"], 1'024);
}

}  // namespace tidegate::l7::test::compress_test
