// SPDX-License-Identifier: Apache-2.0
// JSON bodies in transform: changes as pure functions, and what backends and clients of the proxy see.
#include <gtest/gtest.h>

#include <mutex>
#include <nlohmann/json.hpp>

#include "conf/model.h"
#include "conf/model/policy.h"
#include "conf/policy/transform.h"
#include "l7/policy/json_change.h"
#include "l7/policy/xml_json.h"
#include "tests/unit/l7/http2_client.h"
#include "tests/unit/l7/support.h"

namespace tidegate::l7::test::json_change_test {

using policy::JsonFault;
using policy::XmlFault;

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
    const JsonFault fault = policy::JsonChange(json_, *read_content(json_)).change(body, values, out, arena);
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

// --- XML

std::string json_of_xml(const std::string& xml, size_t most = 100'000) {
  std::string out;
  const XmlFault fault = policy::xml_to_json(xml, most, out);
  if (fault != XmlFault::none) return "fault " + std::to_string(static_cast<int>(fault));
  EXPECT_TRUE(nlohmann::json::accept(out)) << out;
  return out;
}

std::string xml_of_json(const std::string& json, size_t most = 100'000) {
  Arena arena;
  std::string out;
  const XmlFault fault = policy::json_to_xml(json, "root", most, out, arena);
  if (fault != XmlFault::none) return "fault " + std::to_string(static_cast<int>(fault));
  EXPECT_TRUE(out.starts_with("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n")) << out;
  return out.substr(out.find('\n') + 1);
}

TEST(XmlAsJson, ElementsAttributesTextAndListsHaveTheirPlaces) {
  const std::pair<const char*, const char*> rows[] = {
      {"<a/>", R"({"a":""})"},
      {"<a></a>", R"({"a":""})"},
      {"<a> x </a>", R"({"a":" x "})"},
      {"<a>1</a>", R"({"a":"1"})"},
      {"<a><b>1</b><c/></a>", R"({"a":{"b":"1","c":""}})"},
      {"<a><b>1</b><c/><b>2</b></a>", R"({"a":{"b":["1","2"],"c":""}})"},
      {"<a id='7' x=\"&quot;\">t</a>", R"({"a":{"@id":"7","@x":"\"","#text":"t"}})"},
      {"<a id='7'/>", R"({"a":{"@id":"7"}})"},
      {"<a>\n  <b/>\n  mixed <b/> text\n</a>", R"({"a":{"b":["",""],"#text":"mixed  text"}})"},
      {"<a>&lt;&amp;&gt;&apos;&#65;&#x42;&#x20ac;&#x1f600;</a>", "{\"a\":\"<&>'AB\xe2\x82\xac\xf0\x9f\x98\x80\"}"},
      {"<a><![CDATA[<b>&amp;</b>]]></a>", R"({"a":"<b>&amp;</b>"})"},
      {"\xef\xbb\xbf<?xml version='1.0' encoding='UTF-8'?>\n<!-- c -->\n<n:a xmlns:n='u'><!-- c --><n:b/></n:a>\n<!-- "
       "c -->",
       R"({"n:a":{"@xmlns:n":"u","n:b":""}})"},
      {"<a>tab\tquote\"back\\</a>", R"({"a":"tab\u0009quote\"back\\"})"},
  };
  for (const auto& [xml, json] : rows) EXPECT_EQ(json_of_xml(xml), json) << xml;
}

// Each is refused. None of them causes a fetch or grows.
TEST(XmlAsJson, WhatIsMalformedOrCanDoHarmIsRefused) {
  const std::string malformed = "fault 1", not_taken = "fault 2", too_large = "fault 3";
  for (const char* xml : {"",
                          "x",
                          "<",
                          "<a",
                          "<a>",
                          "<a></b>",
                          "<a/><b/>",
                          "<a/>x",
                          "<1/>",
                          "<a b/>",
                          "<a b=c/>",
                          "<a b='1' b='2'/>",
                          "<a b='1'c='2'/>",
                          "<a b='<'/>",
                          "<a>&</a>",
                          "<a>&lt</a>",
                          "<a>&#0;</a>",
                          "<a>&#xd800;</a>",
                          "<a>&#x110000;</a>",
                          "<a>&#99999999999;</a>",
                          "<a>&#x;</a>",
                          "<a>]]></a>",
                          "<a><!-- -- --></a>",
                          "<a><!-- </a>",
                          "<a><![CDATA[x</a>",
                          "<a>\x01</a>",
                          "<a>\xff</a>",
                          "<a/ >",
                          "< a/>",
                          "</a>"}) {
    EXPECT_EQ(json_of_xml(xml), malformed) << xml;
  }
  for (const char* xml :
       {"<!DOCTYPE a [<!ENTITY b SYSTEM 'file:///etc/passwd'>]><a>&b;</a>", "<!DOCTYPE a><a/>", "<a>&nbsp;</a>",
        "<?php x?><a/>", "<a><?x y?></a>", "<?xml version='1.0' encoding='UTF-16'?><a/>"}) {
    EXPECT_EQ(json_of_xml(xml), not_taken) << xml;
  }
  const auto nested = [](size_t depth) {
    std::string out;
    for (size_t i = 0; i < depth; ++i) out += "<a>";
    for (size_t i = 0; i < depth; ++i) out += "</a>";
    return out;
  };
  EXPECT_EQ(json_of_xml(nested(kXmlDepth)).substr(0, 5), "{\"a\":");
  EXPECT_EQ(json_of_xml(nested(kXmlDepth + 1)), malformed);
  std::string many = "<a>";
  for (size_t i = 0; i < kXmlElements; ++i) many += "<b/>";
  EXPECT_EQ(json_of_xml(many + "</a>", 1 << 20), too_large);
  std::string attributes = "<a";
  for (int i = 0; i < 300; ++i) attributes += " b" + std::to_string(i) + "=''";
  EXPECT_EQ(json_of_xml(attributes + "/>"), malformed);
  EXPECT_EQ(json_of_xml("<a>" + std::string(200, 'x') + "</a>", 100), too_large);
  EXPECT_EQ(json_of_xml("<a>" + std::string(60, '\t') + "</a>", 100), too_large) << "after the change";
}

TEST(JsonAsXml, IsWrittenByTheSameRules) {
  const std::pair<const char*, const char*> rows[] = {
      {R"({"a":""})", "<a/>"},
      {R"({"a":null})", "<a/>"},
      {R"({"a":1.50})", "<a>1.50</a>"},
      {R"({"a":{"b":["1",{"@x":2}],"c":true}})", "<a><b>1</b><b x=\"2\"/><c>true</c></a>"},
      {R"({"a":{"#text":"t","@id":"\"7\""}})", "<a id=\"&quot;7&quot;\">t</a>"},
      {R"({"a":"<b>&\u20ac"})", "<a>&lt;b&gt;&amp;\xe2\x82\xac</a>"},
      {R"({"a":"l\nine\r"})", "<a>l&#10;ine&#13;</a>"},
      {R"({"a":1,"b":2})", "<root><a>1</a><b>2</b></root>"},
      {R"({"a":[1,2]})", "<root><a>1</a><a>2</a></root>"},
      {R"([1,{"x":2}])", "<root><item>1</item><item><x>2</x></item></root>"},
      {R"("x")", "<root>x</root>"},
      {"{}", "<root/>"},
      {"[]", "<root></root>"},
      {R"({"\u0061":1})", "<a>1</a>"},
  };
  for (const auto& [json, xml] : rows) EXPECT_EQ(xml_of_json(json), xml) << json;
}

TEST(JsonAsXml, WhatXmlCannotSayIsRefused) {
  for (const char* json : {R"({"a":{"1":2}})", R"({"a":{"":2}})", R"({"a":{"b c":2}})", R"({"a":{"@":2}})",
                           R"({"a":{"b>":2}})", R"({"a":{"@x":1,"@x":2}})"}) {
    EXPECT_EQ(xml_of_json(json), "fault 4") << json;
  }
  for (const char* json : {R"({"a":{"b":[[1]]}})", R"([[1]])", R"({"a":{"@x":{}}})", R"({"a":{"#text":[1]}})"}) {
    EXPECT_EQ(xml_of_json(json), "fault 5") << json;
  }
  EXPECT_EQ(xml_of_json(R"({"a":"\u0001"})"), "fault 1");
  EXPECT_EQ(xml_of_json(R"({"a":"\ud800"})"), "fault 1");
  EXPECT_EQ(xml_of_json("{\"a\":\"" + std::string(80, '<') + "\"}", 200), "fault 3");
}

TEST(JsonAsXml, ComesBackAsItWas) {
  for (const char* json : {R"({"a":{"@id":"7","b":["1","2"],"c":{"d":""},"#text":"x"}})",
                           R"({"order":{"line":[{"@n":"1"},{"@n":"2"}]}})", R"({"a":" spaces \u0009"})"}) {
    EXPECT_EQ(json_of_xml(xml_of_json(json)), json);
  }
}

TEST_F(JsonChangeTest, XmlIsReadChangedAndWritten) {
  json_.from = BodyForm::xml;
  EXPECT_EQ(changed("<a><b>1</b></a>"), R"({"a":{"b":"1"}})");
  json_.edits = {json_edit(&TransformJsonEdit::redact, "a.b"), json_edit(&TransformJsonEdit::set, "a.@by", "{client}")};
  EXPECT_EQ(changed("<a><b>1</b></a>"), R"({"a":{"b":"***","@by":"192.0.2.1"}})");
  json_.to = BodyForm::xml;
  EXPECT_EQ(changed("<a><b>1</b></a>"),
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<a by=\"192.0.2.1\"><b>***</b></a>");
  json_.from = BodyForm::json;
  json_.edits.clear();
  json_.body = R"({{"order": {{"by": "{client}", "what": {json.id}}}}})";
  EXPECT_EQ(
      changed(R"({"id":[1,2]})"),
      "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<order><by>192.0.2.1</by><what>1</what><what>2</what></order>");
  EXPECT_EQ(changed("<a/>"), "no_json");
  json_.from = BodyForm::xml;
  EXPECT_EQ(changed("{}"), "no_xml");
  EXPECT_EQ(changed("<!DOCTYPE a><a/>"), "xml_not_taken");
  const policy::JsonChange change(json_, *read_content(json_));
  for (const char* type : {"application/xml", "text/xml; charset=utf-8", "application/soap+xml"})
    EXPECT_TRUE(change.takes(type));
  for (const char* type : {"application/json", "text/html", "application/xhtml"}) EXPECT_FALSE(change.takes(type));
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

// An answer that cannot be changed must not pass unchanged, because somebody relies on the change.
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

// Clients speak JSON, the backend XML.
TEST_F(JsonBodyTest, AServiceOfXmlSpeaksJsonToItsClients) {
  std::mutex mutex;
  std::string got, answer = "<order id=\"7\"><line>tea</line><line>milk</line><secret>x</secret></order>";
  Origin origin([&](const std::string& head, Wire& wire) {
    const size_t at = head.find("content-length: ");
    const std::lock_guard lock(mutex);
    got = at == std::string::npos ? "" : wire.read_exactly(std::stoul(head.substr(at + 16)));
    return wire.send(Origin::ok(answer, "Content-Type: text/xml; charset=utf-8\r\nETag: \"v\"\r\n"));
  });
  part_->request_json.emplace().to = BodyForm::xml;
  part_->response_json.emplace().from = BodyForm::xml;
  part_->response_json->edits = {json_edit(&TransformJsonEdit::remove, "order.secret")};
  start(origin);
  const Answer told = ask(edge_.endpoint(), put(R"({"order":{"@id":7,"line":["tea","milk"]}})"));
  EXPECT_EQ(got,
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<order id=\"7\"><line>tea</line><line>milk</line></order>");
  EXPECT_NE(origin.last_head().find("Content-Type: application/xml\r\n"), std::string::npos) << origin.last_head();
  EXPECT_EQ(told.body, R"({"order":{"@id":"7","line":["tea","milk"]}})");
  EXPECT_EQ(told.field("content-type"), "application/json");
  EXPECT_EQ(told.field("content-length"), std::to_string(told.body.size()));
  EXPECT_EQ(told.field("etag"), "w/\"v\"");
  const size_t asked = origin.requests();
  EXPECT_EQ(ask(edge_.endpoint(), put(R"({"a":[[1]]})")).status, 400) << "XML has no list in a list";
  EXPECT_EQ(failures("not_transformable"), 1u);
  EXPECT_EQ(origin.requests(), asked);
  {
    const std::lock_guard lock(mutex);
    answer = "<!DOCTYPE a [<!ENTITY x \"y\">]><a>&x;</a>";
  }
  EXPECT_EQ(ask(edge_.endpoint(), get("/x")).status, 502) << "nothing is expanded";
  EXPECT_EQ(failures("bad_response"), 1u);
}

}  // namespace tidegate::l7::test::json_change_test
