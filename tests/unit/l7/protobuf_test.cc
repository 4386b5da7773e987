// SPDX-License-Identifier: Apache-2.0
// Protobuf in transform: schemas, messages as JSON and back, and what backends and clients of the proxy see.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "conf/model.h"
#include "conf/model/policy.h"
#include "conf/policy/transform.h"
#include "core/crypto.h"
#include "core/protobuf.h"
#include "l7/limits.h"
#include "l7/policy/json_change.h"
#include "tests/unit/l7/http2_client.h"
#include "tests/unit/l7/support.h"
#include "tests/unit/made_schema.h"

namespace tidegate::l7::test::protobuf_test {

using policy::JsonFault;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using tidegate::test::made_schema;

const char* const kShop = R"(
    syntax = "proto3";
    package shop.v1;
    import "google/protobuf/timestamp.proto";
    enum Kind { NEW = 0; OLD = 1; }
    message Line { string item = 1; int32 count = 2; Line below = 3; }
    message Order {
      int64 id = 1; repeated Line lines = 2; Kind kind = 3; map<string, int32> tags = 4; bytes raw = 5;
      google.protobuf.Timestamp placed_at = 6; string card_number = 7; repeated fixed64 wide = 8;
    })";

Blob blob(std::string bytes) {
  return {"shop.pb", sha256_hex(bytes), std::make_shared<const std::string>(std::move(bytes))};
}

std::shared_ptr<const ProtobufSchema> shop() { return *ProtobufSchema::read(made_schema(kShop)); }

std::string fault_of(const std::string& descriptors) {
  const auto read = ProtobufSchema::read(descriptors);
  return read ? "" : read.error().message;
}

// Bytes of messages, by hand.
std::string tagged(char tag, const std::string& bytes) {
  return std::string(1, tag) + static_cast<char>(bytes.size()) + bytes;
}
const std::string kId7 = std::string("\x08\x07", 2);
const std::string kTea = tagged('\x12', tagged('\x0a', "tea") + std::string("\x10\x02", 2));

TEST(ProtobufSchemas, AreReadAndTellTheirMessages) {
  EXPECT_THAT(shop()->messages(), ElementsAre("google.protobuf.Timestamp", "shop.v1.Line", "shop.v1.Order"));
  EXPECT_TRUE(shop()->has("shop.v1.Order"));
  for (const char* none : {"shop.v1.Kind", "Order", ".shop.v1.Order", "shop.v1.Order.TagsEntry", ""}) {
    EXPECT_FALSE(shop()->has(none)) << none;
  }
}

TEST(ProtobufSchemas, OnesThatCannotBeUsedSayWhy) {
  EXPECT_EQ(fault_of(""), "it is no set of descriptors");
  EXPECT_EQ(fault_of(kShop), "it is no set of descriptors");
  EXPECT_EQ(fault_of(made_schema(kShop).substr(0, 100)), "it is no set of descriptors");
  EXPECT_EQ(fault_of(made_schema(kShop, true)),
            "it lacks the file google/protobuf/timestamp.proto, which another one imports");
  EXPECT_THAT(fault_of(made_schema(R"(syntax = "proto3"; message A { B b = 1; })")), HasSubstr("\"B\" is not defined"));
  EXPECT_EQ(fault_of(made_schema(R"(syntax = "proto3"; import "made.proto"; message A {})")),
            "made.proto: files import each other");
}

TEST(ProtobufSchemas, AreSharedAsLongAsSomebodyHasThem) {
  const std::string bytes = made_schema(kShop);
  const auto first = *ProtobufSchema::shared("h", bytes);
  EXPECT_EQ(first, *ProtobufSchema::shared("h", bytes));
  EXPECT_NE(first, *ProtobufSchema::shared("other", bytes));
  EXPECT_FALSE(ProtobufSchema::shared("bad", "x").has_value());
}

class ProtobufChangeTest : public ::testing::Test {
 protected:
  ProtobufChangeTest() {
    json_.schema = blob(made_schema(kShop));
    json_.message = "shop.v1.Order";
  }
  std::string changed(const std::string& body) {
    Arena arena;
    RequestHead request;
    const policy::TemplateValues values{.request = request, .client = "192.0.2.1"};
    std::string out;
    const JsonFault fault = policy::JsonChange(json_, *read_content(json_)).change(body, values, out, arena);
    return fault == JsonFault::none ? out : name(fault);
  }
  TransformJson json_;
};

TEST_F(ProtobufChangeTest, AMessageIsReadByTheRulesOfProtobuf) {
  json_.from = BodyForm::protobuf;
  EXPECT_EQ(changed(kId7 + kTea), R"({"id":"7","lines":[{"item":"tea","count":2}]})");
  EXPECT_EQ(changed(""), "{}");
  EXPECT_EQ(changed(std::string("\x18\x01", 2)), R"({"kind":"OLD"})");
  EXPECT_EQ(changed(std::string("\x18\x09", 2)), R"({"kind":9})") << "a value that is newer than the schema";
  EXPECT_EQ(changed(tagged('\x22', tagged('\x0a', "a") + std::string("\x10\x01", 2))), R"({"tags":{"a":1}})");
  EXPECT_EQ(changed(tagged('\x2a', std::string("\0\xff", 2))), R"({"raw":"AP8="})");
  EXPECT_EQ(changed(tagged('\x32', std::string("\x08\x00", 2))), R"({"placedAt":"1970-01-01T00:00:00Z"})");
  EXPECT_EQ(changed(kId7 + std::string("\xf8\x01\x05", 3)), R"({"id":"7"})") << "a field that the schema does not have";
}

TEST_F(ProtobufChangeTest, JsonIsWrittenByTheRulesOfProtobuf) {
  json_.to = BodyForm::protobuf;
  EXPECT_EQ(changed(R"({"id":"7","lines":[{"item":"tea","count":2}]})"), kId7 + kTea);
  EXPECT_EQ(changed(R"({"id":7,"kind":"NEW"})"), kId7 + std::string("\x18\x00", 2));
  EXPECT_EQ(changed(R"({"placed_at":"1970-01-01T00:00:00Z","id":null})"),
            tagged('\x32', std::string("\x08\x00\x10\x00", 4)))
      << "names of the schema are taken too";
  EXPECT_EQ(changed("{}"), "");
}

TEST_F(ProtobufChangeTest, EditsAreAboutTheJson) {
  json_.from = json_.to = BodyForm::protobuf;
  json_.edits.emplace_back().redact = "cardNumber";
  json_.edits.emplace_back().remove = "lines.count";
  EXPECT_EQ(changed(kId7 + kTea + tagged('\x3a', "4111")),
            kId7 + tagged('\x12', tagged('\x0a', "tea")) + tagged('\x3a', "***"));
  json_.to = BodyForm::xml;
  json_.root = "order";
  EXPECT_THAT(changed(kId7), HasSubstr("<id>7</id>"));
}

TEST_F(ProtobufChangeTest, WhatDoesNotFitIsRefused) {
  json_.from = BodyForm::protobuf;
  for (const std::string& body : {std::string("\x08"), std::string("\x08\xff"), std::string("\x12\x05\x0a"),
                                  std::string("\x07\x01"), std::string("{\"id\":7}"), std::string("secret"),
                                  tagged('\x12', "secret"), tagged('\x3a', "\xff\xfe"), std::string(11, '\xff')}) {
    EXPECT_EQ(changed(body), "no_protobuf") << nlohmann::json::binary({body.begin(), body.end()}).dump();
  }
  std::string deep;
  for (int i = 0; i < 20; ++i) deep = tagged('\x1a', deep);
  EXPECT_EQ(changed(tagged('\x12', deep)), "no_protobuf") << "too deep";
  std::string deepest;
  for (int i = 0; i < 60; ++i) deepest = tagged('\x1a', deepest);
  EXPECT_EQ(changed(tagged('\x12', deepest)), "no_protobuf");

  json_.from = BodyForm::json;
  json_.to = BodyForm::protobuf;
  for (const char* json :
       {R"({"idd":7})", R"({"id":"x"})", R"({"id":1.5})", R"({"kind":"NONE"})", R"({"kind":{}})", "[]", "7",
        R"({"raw":"*"})", R"({"placedAt":"yesterday"})", R"({"lines":[{"count":3000000000}]})"}) {
    EXPECT_EQ(changed(json), "not_as_message") << json;
  }
  EXPECT_EQ(changed("{"), "no_json");
  EXPECT_EQ(changed("{id:7}"), "no_json") << "libprotobuf alone would take it";
}

// A reader of JSON takes the first of two members, or the last.
TEST_F(ProtobufChangeTest, AFieldInSeveralPlacesIsOneMember) {
  json_.from = BodyForm::protobuf;
  const std::string tea = R"({"item":"tea","count":2})";
  EXPECT_EQ(changed(kTea + kId7 + kTea), R"({"id":"7","lines":[)" + tea + "," + tea + "]}");
  EXPECT_EQ(changed(kId7 + std::string("\x08\x09", 2)), R"({"id":"9"})") << "the last value";
  const std::string halves = tagged('\x1a', tagged('\x0a', "tea")) + tagged('\x1a', std::string("\x10\x02", 2));
  EXPECT_EQ(changed(tagged('\x12', halves)), R"({"lines":[{"below":)" + tea + "}]}");
  const std::string one = tagged('\x22', tagged('\x0a', "a") + std::string("\x10\x01", 2));
  EXPECT_EQ(changed(one + kId7 + tagged('\x22', tagged('\x0a', "b"))), R"({"id":"7","tags":{"a":1,"b":0}})")
      << "a member without a value has the default";
  EXPECT_EQ(changed(tagged('\x42', "123")), "no_protobuf") << "packed, and cut";
}

// A conversion is slow, and the worker does nothing else meanwhile.
TEST_F(ProtobufChangeTest, ItsValuesAreBoundedOnBothSides) {
  json_.most = 16 << 20;
  json_.from = BodyForm::protobuf;
  std::string lines;
  for (size_t i = 0; i < kProtobufValues; ++i) lines += std::string("\x12\x00", 2);
  EXPECT_THAT(changed(lines), HasSubstr("{},{}"));
  EXPECT_EQ(changed(lines + std::string("\x12\x00", 2)), "body_too_large");
  json_.from = BodyForm::json;
  json_.to = BodyForm::protobuf;
  std::string wide = "{\"wide\":[1";
  for (size_t i = 0; i < kProtobufValues - 4; ++i) wide += ",1";
  const std::string packed = changed(wide + "]}");
  EXPECT_GT(packed.size(), 8 * (kProtobufValues - 4));
  EXPECT_EQ(changed(wide + ",1,1]}"), "body_too_large");
  EXPECT_NE(changed(R"({"cardNumber":")" + std::string(kProtobufValues + 1, ',') + "\"}"), "body_too_large");
  json_.from = BodyForm::protobuf;
  json_.to = BodyForm::json;
  EXPECT_THAT(changed(packed), HasSubstr("\"1\",\"1\"")) << "what was made here can be read here";
}

// libprotobuf counts the depth anew in each of them.
TEST_F(ProtobufChangeTest, ManyAnysInEachOtherAreRefused) {
  json_.schema = blob(made_schema(R"(
      syntax = "proto3"; package m; import "google/protobuf/any.proto";
      message A { google.protobuf.Any any = 1; int32 b = 2; })"));
  json_.message = "m.A";
  json_.from = BodyForm::protobuf;
  json_.most = 1'048'576;
  const auto in_any = [](const std::string& type, const std::string& value) {
    std::string length;
    size_t left = value.size();
    for (; left >= 128; left /= 128) length += static_cast<char>(left % 128 + 128);
    return tagged('\x0a', "type.googleapis.com/" + type) + "\x12" + length + static_cast<char>(left) + value;
  };
  EXPECT_EQ(changed(tagged('\x0a', in_any("m.A", std::string("\x10\x05", 2)))),
            R"({"any":{"@type":"type.googleapis.com/m.A","b":5}})");
  for (const std::string& twice : {std::string("\x10\x05\x10\x06", 4), std::string("\x10\xff", 2)}) {
    EXPECT_EQ(changed(tagged('\x0a', in_any("m.A", twice))), "no_protobuf") << "they are converted as they come";
  }
  std::string body;
  for (int i = 0; i < 1'000; ++i) body = in_any("google.protobuf.Any", body);
  json_.message = "google.protobuf.Any";
  EXPECT_EQ(changed(body), "no_protobuf");
  EXPECT_EQ(changed(in_any("m.Unknown", kId7)), "no_protobuf");
}

TEST_F(ProtobufChangeTest, ItsSizeIsBoundedOnBothSides) {
  json_.most = 200;
  json_.from = BodyForm::protobuf;
  std::string many;
  for (int i = 0; i < 60; ++i) many += std::string("\x12\x00", 2);
  EXPECT_EQ(
      changed(many), R"({"lines":[{})" + [] {
        std::string more;
        for (int i = 0; i < 59; ++i) more += ",{}";
        return more;
      }() + "]}");
  EXPECT_EQ(changed(many + many.substr(0, 60)), "body_too_large") << "the JSON of 180 bytes";
  EXPECT_EQ(changed(many + many), "body_too_large");
  json_.from = BodyForm::json;
  json_.to = BodyForm::protobuf;
  std::string wide = "{\"wide\":[1";
  for (int i = 0; i < 50; ++i) wide += ",1";
  EXPECT_EQ(changed(wide + "]}"), "body_too_large") << "8 bytes of 2";
}

TEST_F(ProtobufChangeTest, TakesTheTypesOfProtobufAndSaysWhatItMakes) {
  json_.from = BodyForm::protobuf;
  const policy::JsonChange reads(json_, *read_content(json_));
  for (const char* type :
       {"application/protobuf", "application/x-protobuf; messageType=\"a\"", "application/vnd.google.protobuf"}) {
    EXPECT_TRUE(reads.takes(type)) << type;
  }
  for (const char* type : {"application/json", "application/grpc+proto", "application/octet-stream"}) {
    EXPECT_FALSE(reads.takes(type)) << type;
  }
  EXPECT_EQ(reads.new_content_type(), "application/json");
  EXPECT_EQ(reads.conversion(), "protobuf to json (shop.v1.Order)");
  EXPECT_TRUE(reads.takes_empty());
  json_.from = BodyForm::json;
  json_.to = BodyForm::protobuf;
  const policy::JsonChange writes(json_, *read_content(json_));
  EXPECT_EQ(writes.new_content_type(), "application/protobuf");
  EXPECT_EQ(writes.conversion(), "json to protobuf (shop.v1.Order)");
  EXPECT_FALSE(writes.takes_empty());
}

// --- through the proxy

class ProtobufBodyTest : public ::testing::Test {
 protected:
  ProtobufBodyTest() : part_(std::make_shared<TransformPolicy>()) {
    for (auto* terms : {&part_->request_json, &part_->response_json}) {
      terms->emplace().schema = blob(made_schema(kShop));
      (*terms)->message = "shop.v1.Order";
    }
    part_->request_json->to = part_->response_json->from = BodyForm::protobuf;
  }
  void start(Origin& origin) {
    edge_.model.policies.push_back({"shape", true, {{"transform", part_}}});
    edge_.add_route("/*", edge_.add_pool("p", {origin.endpoint()}));
    edge_.start();
  }
  static std::string post(const std::string& body, const std::string& type = "application/json") {
    return "POST /x HTTP/1.1\r\nHost: a\r\nContent-Type: " + type +
           "\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
  }
  // Answers with the body that it gets.
  static bool echo(const std::string& head, Wire& wire) {
    const size_t at = head.find("content-length: ");
    const std::string body = at == std::string::npos ? "" : wire.read_exactly(std::stoul(head.substr(at + 16)));
    return wire.send(Origin::ok(body, "Content-Type: application/x-protobuf\r\n"));
  }
  Edge edge_;
  std::shared_ptr<TransformPolicy> part_;
};

TEST_F(ProtobufBodyTest, AServiceOfProtobufSpeaksJson) {
  Origin origin(&echo);
  start(origin);
  const std::string json = R"({"id":"7","lines":[{"item":"tea","count":2}]})";
  Answer answer = ask(edge_.endpoint(), post(json));
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(answer.body, json);
  EXPECT_EQ(answer.field("content-type"), "application/json");
  EXPECT_THAT(origin.last_head(), HasSubstr("application/protobuf"));
  EXPECT_THAT(origin.last_head(), HasSubstr("Content-Length: " + std::to_string((kId7 + kTea).size())));
  answer = ask(edge_.endpoint(), post(R"({"idd":7})"));
  EXPECT_EQ(answer.status, 400);
  EXPECT_EQ(edge_.metric("tidegate_l7_failures_total{reason=\"not_transformable\"}"), 1u);
}

TEST_F(ProtobufBodyTest, AMessageOfNoBytesIsAnEmptyObject) {
  Origin origin(&echo);
  start(origin);
  EXPECT_EQ(ask(edge_.endpoint(), post("{}")).body, "{}");
  EXPECT_THAT(origin.last_head(), HasSubstr("Content-Length: 0\r\n"));
  Http2Client client(edge_.endpoint());
  const int32_t stream = client.submit(Http2Client::request("/x"));
  ASSERT_TRUE(client.finish(stream));
  EXPECT_EQ(client.result(stream).body, "{}");
  Wire wire = Wire::connect(edge_.endpoint());
  wire.send("HEAD /x HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_EQ(read_answer(wire, true).status, 200);
}

TEST_F(ProtobufBodyTest, ARequestOfNoBytesBecomesAnEmptyObject) {
  std::swap(part_->request_json->from, part_->request_json->to);
  std::swap(part_->response_json->from, part_->response_json->to);
  std::string got;
  Origin origin([&](const std::string& head, Wire& wire) {
    const size_t at = head.find("content-length: ");
    got = at == std::string::npos ? "none" : wire.read_exactly(std::stoul(head.substr(at + 16)));
    return wire.send(Origin::ok("{}", "Content-Type: application/json\r\n"));
  });
  start(origin);
  const Answer answer = ask(edge_.endpoint(), post("", "application/protobuf"));
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(answer.field("content-length"), "0");
  EXPECT_EQ(answer.field("content-type"), "application/protobuf");
  EXPECT_EQ(got, "{}");
  ask(edge_.endpoint(), get("/x", "a", "Content-Type: application/protobuf\r\n"));
  EXPECT_EQ(got, "none") << "a GET has no body";
}

TEST_F(ProtobufBodyTest, AnAnswerThatIsNoMessageNeverPasses) {
  Origin origin([](const std::string&, Wire& wire) {
    return wire.send(Origin::ok("secret", "Content-Type: application/protobuf\r\n"));
  });
  start(origin);
  const Answer answer = ask(edge_.endpoint(), get("/x"));
  EXPECT_EQ(answer.status, 502);
  EXPECT_EQ(answer.body.find("secret"), std::string::npos);
}

}  // namespace tidegate::l7::test::protobuf_test
