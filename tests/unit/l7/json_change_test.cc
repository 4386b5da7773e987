// SPDX-License-Identifier: Apache-2.0
// JSON bodies in transform: changes as pure functions, and what backends and clients of the proxy see.
#include <gtest/gtest.h>

#include <mutex>
#include <nlohmann/json.hpp>

#include "conf/policy/transform.h"
#include "l7/policy/json_change.h"
#include "tests/unit/l7/http2_client.h"
#include "tests/unit/l7/support.h"

namespace tidegate::l7::test::json_change_test {

using policy::JsonFault;

TransformJsonEdit json_edit(std::string TransformJsonEdit::*action, std::string path, std::string more = "") {
  TransformJsonEdit made;
  made.*action = std::move(path);
  (action == &TransformJsonEdit::rename ? made.to : made.value) = std::move(more);
  return made;
}

class JsonChangeTest : public ::testing::Test {
 protected:
  std::string changed(const std::string& body) {
    Arena arena;
    RequestHead request;
    request.fields.add({"x-a", R"(q"\)"});
    const policy::TemplateValues values{.request = request, .client = "192.0.2.1", .claims = claims_};
    std::string out;
    const JsonFault fault = policy::JsonChange(json_).change(body, values, out, arena);
    return fault == JsonFault::none ? out : name(fault);
  }
  TransformJson json_;
  std::string claims_ = R"({"sub":"amy\n","bad":"\u0000"})";
};

TEST_F(JsonChangeTest, PicksNamesAndPathsThroughListsAndKeepsTextsAsTheyWere) {
  json_.pick = {"id", "user.name", "items.id"};
  EXPECT_EQ(changed(R"( {"id":1.50e3,"x":2,"user":{"name":"\u00e9\/","age":3},"items":[{"id":1,"x":2},{"x":3},4]} )"),
            R"({"id":1.50e3,"user":{"name":"\u00e9\/"},"items":[{"id":1},{},4]})");
  EXPECT_EQ(changed(R"([{"id":1,"x":2}])"), R"([{"id":1}])");
  EXPECT_EQ(changed(R"({"user":"amy"})"), "{}") << "there is no name in it";
  EXPECT_EQ(changed("7"), "7");
}

TEST_F(JsonChangeTest, EditsSetRemoveRenameAndRedact) {
  json_.edits = {json_edit(&TransformJsonEdit::remove, "secret"), json_edit(&TransformJsonEdit::redact, "cards.number"),
                 json_edit(&TransformJsonEdit::rename, "user.mail", "email"),
                 json_edit(&TransformJsonEdit::set, "by", "{client} {header.x-a} {jwt.sub}"),
                 json_edit(&TransformJsonEdit::set, "user.copy", "{json.id}")};
  EXPECT_EQ(
      changed(R"({"id":[1],"secret":1,"cards":[{"number":"4111","ok":true}],"user":{"mail":"a","email":"old"}})"),
      R"({"id":[1],"cards":[{"number":"***","ok":true}],"user":{"email":"a","copy":[1]},"by":"192.0.2.1 q\"\\ amy\u000a"})");
  EXPECT_EQ(changed(R"({"s\u0065cret":1,"secret":2,"by":0,"user":{"email":"stays"}})"),
            R"({"user":{"email":"stays","copy":null},"by":"192.0.2.1 q\"\\ amy\u000a"})")
      << "an escaped name is the same name, and a name that stands twice is removed twice";
}

TEST_F(JsonChangeTest, ABodyIsMadeAnewOfItsValues) {
  json_.body = R"({{"who": "{jwt.sub}", "a": "{header.x-a}", "what": {json.item.id}, "none": {json.absent}}})";
  EXPECT_EQ(changed(R"({"item":{"id":{"x":1}}})"),
            R"({"who": "amy\u000a", "a": "q\"\\", "what": {"x":1}, "none": null})");
  json_.body = R"({{"broken": {client}}})";
  EXPECT_EQ(changed("{}"), "bad_text");
}

TEST_F(JsonChangeTest, WhatIsNoJsonOrTooLargeIsRefused) {
  json_.pick = {"a"};
  for (const char* body : {"", "{", "{\"a\":01}", "{'a':1}", "{\"a\":1}x", "{\"a\":1,}", "nul", "{\"a\":\"\xff\"}"}) {
    EXPECT_EQ(changed(body), "no_json") << body;
  }
  EXPECT_EQ(changed(std::string(40, '[') + std::string(40, ']')), "no_json") << "too deep";
  json_.most = 64;
  EXPECT_EQ(changed("{\"a\":\"" + std::string(60, 'x') + "\"}"), "body_too_large");
  json_.edits = {json_edit(&TransformJsonEdit::set, "a", std::string(70, 'y'))};
  EXPECT_EQ(changed("{}"), "body_too_large") << "after the change";
}

TEST_F(JsonChangeTest, ManyMembersOfOneNameTakeTheTimeOfTheirNumber) {
  json_.edits = {json_edit(&TransformJsonEdit::rename, "a", "b"), json_edit(&TransformJsonEdit::rename, "c", "b")};
  json_.most = 1'048'576;
  std::string body = "{\"a\":0";
  for (int i = 0; i < 50'000; ++i) body += ",\"b\":0";
  EXPECT_EQ(changed(body + "}"), "{\"b\":0}");
}

// --- through the proxy

class JsonBodyTest : public ::testing::Test {
 protected:
  JsonBodyTest() : part_(std::make_shared<TransformPolicy>()) {}
  void start(Origin& origin) {
    edge_.model.policies.push_back({"shape", true, {{"transform", part_}}});
    edge_.add_route("/*", edge_.add_pool("p", {origin.endpoint()}));
    edge_.start();
  }
  static Origin::Handler sends_json(std::string body, std::string fields = "") {
    return [=](const std::string& head, Wire& wire) {
      const std::string answer =
          Origin::ok(body, "Content-Type: application/json; charset=utf-8\r\nETag: \"v\"\r\n" + fields);
      return wire.send(head.rfind("HEAD ", 0) == 0 ? answer.substr(0, answer.find("\r\n\r\n") + 4) : answer);
    };
  }
  void redact_answers() {
    part_->response_json = TransformJson{{}, {json_edit(&TransformJsonEdit::redact, "card")}, "", 4'096};
  }
  std::string put(const std::string& body, const std::string& type = "application/json", const std::string& more = "") {
    return "PUT /x HTTP/1.1\r\nHost: a\r\nContent-Type: " + type + "\r\n" + more +
           "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
  }
  uint64_t failures(const std::string& reason) {
    return edge_.metric("tidegate_l7_failures_total{reason=\"" + reason + "\"}");
  }
  Edge edge_;
  std::shared_ptr<TransformPolicy> part_;
};

TEST_F(JsonBodyTest, AnAnswerIsChangedWithItsLengthAndItsETag) {
  Origin origin(sends_json(R"({"card":"4111111111111111","id":1})", "Accept-Ranges: bytes\r\nContent-Digest: x\r\n"));
  redact_answers();
  start(origin);
  const Answer answer = ask(edge_.endpoint(), get("/x", "a", "Accept-Encoding: gzip\r\nRange: bytes=0-1\r\n"));
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(answer.body, R"({"card":"***","id":1})");
  EXPECT_EQ(answer.field("content-length"), "21");
  EXPECT_EQ(answer.field("etag"), "w/\"v\"");
  EXPECT_EQ(answer.field("accept-ranges") + answer.field("content-digest"), "");
  for (const char* gone : {"Accept-Encoding", "Range:"}) EXPECT_EQ(origin.last_head().find(gone), std::string::npos);
  Wire wire = Wire::connect(edge_.endpoint());
  wire.send("HEAD /x HTTP/1.1\r\nHost: a\r\n\r\n");
  const Answer head = read_answer(wire, true);
  EXPECT_EQ(head.status, 200);
  EXPECT_EQ(head.field("content-length"), "") << "nobody knows it without the body";
  EXPECT_EQ(head.field("etag"), "w/\"v\"");
  Http2Client client(edge_.endpoint());
  const int32_t stream = client.submit(Http2Client::request("/x"));
  ASSERT_TRUE(client.finish(stream));
  EXPECT_EQ(client.result(stream).body, R"({"card":"***","id":1})");
}

TEST_F(JsonBodyTest, AnAnswerInManyPiecesIsTakenWhole) {
  Origin origin([](const std::string&, Wire& wire) {
    wire.send("HTTP/1.1 200 OK\r\nContent-Type: application/problem+json\r\nTransfer-Encoding: chunked\r\n\r\n");
    for (const char c : std::string(R"({"card":"4111"})")) wire.send("1\r\n" + std::string(1, c) + "\r\n");
    return wire.send("0\r\n\r\n");
  });
  redact_answers();
  start(origin);
  EXPECT_EQ(ask(edge_.endpoint(), get("/x")).body, R"({"card":"***"})");
}

// What cannot be changed must not pass as it is: somebody relies on what is not in it.
TEST_F(JsonBodyTest, AnAnswerThatCannotBeChangedIsRefusedAndOtherTypesPass) {
  std::atomic<int> next{0};
  const std::string json = "Content-Type: application/json\r\n";
  const std::vector<std::string> answers = {Origin::ok("{\"card\":", json),
                                            Origin::ok("{\"card\":1}", json + "Content-Encoding: gzip\r\n"),
                                            Origin::ok("[" + std::string(5'000, ' ') + "]", json),
                                            "HTTP/1.1 200 OK\r\n" + json +
                                                "Transfer-Encoding: chunked\r\n\r\n1400\r\n[" +
                                                std::string(5'118, ' ') + "]\r\n0\r\n\r\n",
                                            "HTTP/1.1 200 OK\r\n" + json + "Content-Length: 20\r\n\r\n{\"card\":",
                                            Origin::ok("{\"card\":1}", "Content-Type: text/plain\r\n"),
                                            Origin::ok("", json)};
  Origin origin([&](const std::string&, Wire& wire) {
    const size_t index = static_cast<size_t>(next++);
    return wire.send(answers[index]) && index != 4;
  });
  redact_answers();
  start(origin);
  for (int i = 0; i < 5; ++i) {
    const Answer answer = ask(edge_.endpoint(), get("/x"));
    EXPECT_EQ(answer.status, 502) << i;
    EXPECT_EQ(answer.body.find("card"), std::string::npos) << i;
  }
  EXPECT_EQ(failures("bad_response"), 4u);
  EXPECT_EQ(ask(edge_.endpoint(), get("/x")).body, "{\"card\":1}");
  EXPECT_EQ(ask(edge_.endpoint(), get("/x")).status, 200);
}

TEST_F(JsonBodyTest, ARequestIsChangedWithItsLength) {
  std::mutex mutex;
  std::string got;
  Origin origin([&](const std::string& head, Wire& wire) {
    const size_t at = head.find("content-length: ");
    const std::lock_guard lock(mutex);
    got = at == std::string::npos ? "(no length)" : wire.read_exactly(std::stoul(head.substr(at + 16)));
    return wire.send(Origin::ok("x"));
  });
  part_->request_json = TransformJson{{"a", "by"}, {json_edit(&TransformJsonEdit::set, "by", "{client}")}, "", 64};
  start(origin);
  EXPECT_EQ(ask(edge_.endpoint(), put("{\"a\":1,\"b\":2}", "application/json", "Content-Digest: x\r\n")).status, 200);
  EXPECT_EQ(got, R"({"a":1,"by":"127.0.0.1"})");
  EXPECT_EQ(origin.last_head().find("Content-Digest"), std::string::npos);
  EXPECT_EQ(ask(edge_.endpoint(),
                "PUT /x HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nTransfer-Encoding: "
                "chunked\r\n\r\n4\r\n{\"a\"\r\n3\r\n:2}\r\n0\r\n\r\n")
                .status,
            200);
  EXPECT_EQ(got, R"({"a":2,"by":"127.0.0.1"})") << "a chunked body too";
  EXPECT_EQ(ask(edge_.endpoint(), put("plain", "text/plain")).status, 200);
  EXPECT_EQ(got, "plain");
}

TEST_F(JsonBodyTest, ARequestThatCannotBeChangedIsRefusedBeforeABackendIsAsked) {
  Origin origin(Origin::says("x"));
  part_->request_json = TransformJson{{"a"}, {}, "", 64};
  start(origin);
  EXPECT_EQ(ask(edge_.endpoint(), put("{\"a\":")).status, 400);
  EXPECT_EQ(ask(edge_.endpoint(), put("{}", "application/json", "Content-Encoding: gzip\r\n")).status, 400);
  EXPECT_EQ(failures("not_transformable"), 2u);
  EXPECT_EQ(ask(edge_.endpoint(), put("[" + std::string(70, ' ') + "]")).status, 413);
  EXPECT_EQ(ask(edge_.endpoint(),
                "PUT /x HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nTransfer-Encoding: "
                "chunked\r\n\r\n64\r\n[" +
                    std::string(98, ' ') + "]\r\n0\r\n\r\n")
                .status,
            413);
  EXPECT_EQ(origin.requests(), 0u);
  EXPECT_EQ(ask(edge_.endpoint(), get("/x")).status, 200);
}

}  // namespace tidegate::l7::test::json_change_test
