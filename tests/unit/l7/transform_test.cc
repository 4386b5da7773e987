// SPDX-License-Identifier: Apache-2.0
// The transform policy: texts with variables and edits as pure functions, RE2 beside PCRE2, and what backends and
// clients of the proxy see.
#include <gtest/gtest.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <random>

#include "conf/limits.h"
#include "conf/model.h"
#include "conf/model/node.h"
#include "conf/model/policy.h"
#include "conf/model/pool.h"
#include "conf/model/route.h"
#include "conf/policy/authenticate.h"
#include "conf/policy/transform.h"
#include "core/http_server.h"
#include "l7/limits.h"
#include "l7/policy/transformer.h"
#include "tests/unit/l7/http2_client.h"
#include "tests/unit/l7/http2_origin.h"
#include "tests/unit/l7/state_dir.h"
#include "tests/unit/l7/support.h"

namespace tidegate::l7::test::transform_test {

using policy::TemplateUse;
using policy::TemplateValues;
using policy::Transformer;
using policy::TransformFault;

TransformEdit edit(std::string TransformEdit::*action, std::string name, std::string value = "") {
  TransformEdit made;
  made.*action = std::move(name);
  made.value = std::move(value);
  return made;
}
TransformEdit replace(std::string name, std::string match, std::string value) {
  TransformEdit made = edit(&TransformEdit::replace, std::move(name), std::move(value));
  made.match = std::move(match);
  return made;
}
TransformEdit rename(std::string name, std::string to) {
  TransformEdit made = edit(&TransformEdit::rename, std::move(name));
  made.to = std::move(to);
  return made;
}

// --- pure

class TransformerTest : public ::testing::Test {
 protected:
  TransformerTest() {
    request_.method = "GET";
    request_.authority = "A.test:81";
    request_.host = "a.test";
    request_.path = "/u/7%2F8/x&y";
    request_.query = "q=a%20b&r=1&q=c";
    request_.has_query = true;
    request_.fields.add({"x-who", "amy"});
    request_.fields.add({"x_who", "imitated"});
    request_.fields.add({"cookie", "a=1; s=t=u", FieldKind::cookie});
    parameters_.items[0] = {"id", "7%2F8"};
    parameters_.items[1] = {"last", "x&y"};
    parameters_.count = 2;
  }
  TemplateValues values() {
    return {.request = request_,
            .parameters = &parameters_,
            .client = "192.0.2.1",
            .scheme = "https",
            .route = "r",
            .request_id = "id1",
            .identity = "amy lee",
            .tls_version = "TLSv1.3",
            .claims = claims_,
            .port = 8443};
  }
  std::string text(const std::string& pattern, TemplateUse use = TemplateUse::field) {
    const Result<TextTemplate> parsed = parse_template(pattern);
    EXPECT_TRUE(parsed) << pattern;
    return std::string(expand(*parsed, values(), nullptr, use, 1'000, arena_).value_or("(too long)"));
  }
  TransformFault change(const TransformPolicy& part) {
    head_ = request_;
    host_ = {};
    transformer_.emplace(part, *read_content(part));
    return transformer_->change_request(values(), head_, host_, arena_);
  }
  std::string path_of(const std::string& value, const std::string& prefix = "", const std::string& match = "") {
    TransformPolicy part;
    part.path = TransformPath{value, prefix, match};
    const TransformFault fault = change(part);
    return fault == TransformFault::none ? std::string(head_.path) : name(fault);
  }
  std::string query_of(std::vector<TransformEdit> edits) {
    TransformPolicy part;
    part.query = std::move(edits);
    const TransformFault fault = change(part);
    return fault == TransformFault::none ? (head_.has_query ? "?" : "") + std::string(head_.query) : name(fault);
  }
  // "name: value" of each, separated by " | "; or the fault.
  std::string fields_of(std::vector<TransformEdit> edits) {
    TransformPolicy part;
    part.request_headers = std::move(edits);
    const TransformFault fault = change(part);
    if (fault != TransformFault::none) return name(fault);
    std::string out;
    for (const Field& field : head_.fields) {
      out += (out.empty() ? "" : " | ") + std::string(field.written_name()) + ": " + std::string(field.value);
    }
    return out;
  }

  Arena arena_;
  RequestHead request_, head_;
  RouteParameters parameters_;
  std::string claims_ = R"({"sub":"u\r\n1","org":{"id":12},"ok":true,"none":null,"list":["a"]})";
  std::string_view host_;
  std::optional<Transformer> transformer_;  // the head has views of it
};

TEST_F(TransformerTest, VariablesAreOfTheRequestAsItCame) {
  EXPECT_EQ(text("{client} {port} {host} {authority} {method} {scheme} {route} {request_id} {identity} {tls.version}"),
            "192.0.2.1 8443 a.test A.test:81 GET https r id1 amy lee TLSv1.3");
  EXPECT_EQ(text("{path}?{query} {path.id} {id} {query.r} {header.X-Who} {cookie.s}"),
            "/u/7%2F8/x&y?q=a%20b&r=1&q=c 7%2F8 7%2F8 1 amy t=u");
  EXPECT_EQ(text("{jwt.org.id} {jwt.ok}[{jwt.none}][{jwt.list}][{jwt.org}][{header.absent}]{{x}}"),
            "12 true[][][][]{x}");
}

TEST_F(TransformerTest, AValueCannotEndThePlaceWhereItIsPut) {
  EXPECT_EQ(text("/a/{identity}/{query.q}/{id}", TemplateUse::path), "/a/amy%20lee/a%20b/7%2F8");
  request_.query = "q=/../?x&e=%2E";
  EXPECT_EQ(text("/{query.q}", TemplateUse::path), "/%2F..%2F%3Fx");
  EXPECT_EQ(text("{last}&{identity}", TemplateUse::query), "x%26y&amy%20lee");
  EXPECT_EQ(text("{jwt.sub}", TemplateUse::query), "u%0D%0A1");
}

TEST_F(TransformerTest, APathIsSetOrItsPrefixOrAMatchIsReplaced) {
  EXPECT_EQ(path_of("/v2/{path.id}"), "/v2/7%2F8");
  EXPECT_EQ(path_of("/v1", "/u"), "/v1/7%2F8/x&y");
  EXPECT_EQ(path_of("", "/u/"), "/7%2F8/x&y");
  EXPECT_EQ(path_of("/", "/u"), "/7%2F8/x&y") << "no doubled slash";
  EXPECT_EQ(path_of("/v1", "/u/7"), "/u/7%2F8/x&y") << "a prefix is whole segments";
  EXPECT_EQ(path_of("{match.2}-{match.1}", "", "/(u)/([^/]*)"), "bad_path");
  EXPECT_EQ(path_of("/{match.2}-{match.1}", "", "/(u)/([^/]*)"), "/7%2F8-u/x&y");
  EXPECT_EQ(path_of("/{match.1}", "", "^/nothing"), "/u/7%2F8/x&y");
  request_.path = "/u";
  EXPECT_EQ(path_of("", "/u"), "/");
  EXPECT_EQ(path_of("/v1/", "/u"), "/v1/");
}

// With each of these values the path would leave the place that the document names, or could be read in two ways.
TEST_F(TransformerTest, APathIsRefusedThatABackendCouldReadInAnotherWay) {
  for (const char* value : {"..", ".", "%2e%2E", ".%2e", "..;x", "%2e;a"}) {
    parameters_.items[0].second = value;
    EXPECT_EQ(path_of("/t/{id}/data"), "bad_path") << value;
  }
  parameters_.items[0].second = "a\\b";
  EXPECT_EQ(path_of("/t/{id}"), "bad_path");
  EXPECT_EQ(path_of("/{header.x-who}{header.x-dots}"), "/amy");
  request_.fields.add({"x-dots", ".."});
  EXPECT_EQ(path_of("/a/{header.x-dots}/b"), "bad_path");
  EXPECT_EQ(path_of("/a/...{header.x-dots}/b"), "/a/...../b") << "that is a name";
}

TEST_F(TransformerTest, ParametersOfTheQueryAreSetAddedRemovedRenamedAndReplaced) {
  EXPECT_EQ(query_of({edit(&TransformEdit::set, "q", "{identity}&")}), "?r=1&q=amy%20lee&");
  EXPECT_EQ(query_of({edit(&TransformEdit::set, "a b", "1")}), "?q=a%20b&r=1&q=c&a%20b=1");
  EXPECT_EQ(query_of({edit(&TransformEdit::add, "q", "{id}")}), "?q=a%20b&r=1&q=c&q=7%2F8");
  EXPECT_EQ(query_of({edit(&TransformEdit::remove, "q")}), "?r=1");
  EXPECT_EQ(query_of({edit(&TransformEdit::remove, "q"), edit(&TransformEdit::remove, "r")}), "");
  EXPECT_EQ(query_of({edit(&TransformEdit::set, "q", "{header.absent}")}), "?r=1") << "an empty value removes";
  EXPECT_EQ(query_of({rename("q", "s")}), "?s=a%20b&r=1&s=c");
  EXPECT_EQ(query_of({replace("q", "^(.)%20", "{match.1}-{client}-")}), "?q=a-192.0.2.1-b&r=1&q=c");
  request_.query = "%71=1&q&r";
  EXPECT_EQ(query_of({edit(&TransformEdit::remove, "q")}), "?r") << "an escaped name is the same name";
  request_.query = "";
  EXPECT_EQ(query_of({edit(&TransformEdit::remove, "q")}), "?") << "/a? stays /a?";
}

TEST_F(TransformerTest, FieldsAreSetAddedRemovedRenamedAndReplaced) {
  const std::string rest = "cookie: a=1; s=t=u";
  EXPECT_EQ(fields_of({edit(&TransformEdit::set, "X-Who", "{client}")}), rest + " | X-Who: 192.0.2.1")
      << "what CGI reads alike is gone too";
  EXPECT_EQ(fields_of({edit(&TransformEdit::set, "X-Who", "{jwt.nobody}")}), rest) << "nobody's own field passes";
  EXPECT_EQ(fields_of({edit(&TransformEdit::remove, "x-who")}), rest);
  EXPECT_EQ(fields_of({edit(&TransformEdit::add, "X-Who", "b")}),
            "x-who: amy | x_who: imitated | " + rest + " | X-Who: b");
  EXPECT_EQ(fields_of({rename("x-who", "X-Name")}), "X-Name: amy | x_who: imitated | " + rest);
  EXPECT_EQ(fields_of({rename("cookie", "X-Who")}), "X-Who: a=1; s=t=u") << "in place of all that CGI reads alike";
  EXPECT_EQ(fields_of({replace("x-who", "m(.)", "M{match.1}{match.0}")}), "x-who: aMymy | x_who: imitated | " + rest);
  EXPECT_EQ(fields_of({edit(&TransformEdit::set, "X-A", " {header.x-who} ")}),
            "x-who: amy | x_who: imitated | " + rest + " | X-A: amy");
}

TEST_F(TransformerTest, AFieldWithAControlCharacterIsRefused) {
  EXPECT_EQ(fields_of({edit(&TransformEdit::set, "X-Sub", "{jwt.sub}")}), "bad_value");
  EXPECT_EQ(fields_of({replace("x-who", "a", "{jwt.sub}")}), "bad_value");
  claims_ = R"({"sub":"a\u0000b"})";
  EXPECT_EQ(fields_of({edit(&TransformEdit::add, "X-Sub", "{jwt.sub}")}), "bad_value");
}

TEST_F(TransformerTest, SizesAreBounded) {
  const std::string large(kTransformValueBytes / 2 + 1, 'x');
  request_.fields.add({"x-large", large});
  EXPECT_EQ(fields_of({edit(&TransformEdit::set, "X-A", "{header.x-large}{header.x-large}")}), "value_too_large");
  EXPECT_EQ(query_of({edit(&TransformEdit::set, "a", "{header.x-large}{header.x-large}")}), "value_too_large");
  std::vector<TransformEdit> many(kTransformEdits, edit(&TransformEdit::add, "X-A", "{header.x-large}"));
  EXPECT_EQ(fields_of(many), "value_too_large") << "together";
  many.resize(kTransformFieldBytes / large.size());
  EXPECT_NE(fields_of(many), "value_too_large");
  EXPECT_EQ(path_of("/{header.x-large}{header.x-large}{header.x-large}{header.x-large}"), "target_too_large");
  const std::string pairs = [] {
    std::string out;
    while (out.size() < kTransformTargetBytes - 100) out += "q&";
    return out;
  }();
  request_.query = pairs;
  EXPECT_EQ(query_of({rename("q", "longer")}), "target_too_large");
  RequestHead full = request_;
  while (full.fields.add({"x", "y"})) continue;
  request_ = full;
  EXPECT_EQ(fields_of({edit(&TransformEdit::add, "X-A", "b")}), "too_many_fields");
}

TEST_F(TransformerTest, AHostIsSetIfItIsOne) {
  TransformPolicy part;
  part.host = "{header.x-who}.internal:8080";
  ASSERT_EQ(change(part), TransformFault::none);
  EXPECT_EQ(host_, "amy.internal:8080");
  part.host = "{header.absent}.internal";
  EXPECT_EQ(change(part), TransformFault::bad_host);
  part.host = "{identity}";
  EXPECT_EQ(change(part), TransformFault::bad_host);
}

// --- RE2 beside PCRE2

struct PcrePattern {
  explicit PcrePattern(const std::string& pattern) {
    int error = 0;
    PCRE2_SIZE at = 0;
    code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(), PCRE2_DOLLAR_ENDONLY, &error,
                         &at, nullptr);
  }
  ~PcrePattern() { pcre2_code_free(code); }
  PcrePattern(const PcrePattern&) = delete;
  PcrePattern& operator=(const PcrePattern&) = delete;
  // The offsets of each group; -1 if it matched nothing.
  std::vector<std::pair<size_t, size_t>> search(const std::string& text) const {
    pcre2_match_data* const data = pcre2_match_data_create_from_pattern(code, nullptr);
    const int count = pcre2_match(code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), 0, 0, data, nullptr);
    std::vector<std::pair<size_t, size_t>> out;
    const PCRE2_SIZE* const ends = pcre2_get_ovector_pointer(data);
    for (int i = 0; i < count; ++i) out.emplace_back(ends[2 * i], ends[2 * i + 1]);
    pcre2_match_data_free(data);
    return out;
  }
  pcre2_code* code = nullptr;
};

// A pattern in the part of the language that both define in the same way.
std::string random_pattern(std::mt19937& random, int depth) {
  const auto pick = [&](std::vector<const char*> words) { return std::string(words[random() % words.size()]); };
  std::string out;
  for (size_t i = 0, n = 1 + random() % 3; i < n; ++i) {
    std::string atom = depth > 0 && random() % 3 == 0
                           ? (random() % 2 == 0 ? "(" : "(?:") + random_pattern(random, depth - 1) + ")"
                           : pick({"a", "b", "/", ".", "[ab]", "[^/]", "\\d", "\\w", "\\."});
    out += atom + pick({"", "", "?", "{1,2}", "+", "*", "*?", "+?"});
  }
  if (depth > 0 && random() % 4 == 0) out += "|" + random_pattern(random, depth - 1);
  return out;
}

TEST(Regex, FindsWhatPcreFinds) {
  std::mt19937 random(14);
  size_t matched = 0;
  for (int i = 0; i < 4'000; ++i) {
    std::string pattern = random_pattern(random, 2);
    if (random() % 4 == 0) pattern.insert(0, "^");
    if (random() % 4 == 0) pattern = "(?:" + pattern + ")$";
    const Result<Regex> ours = Regex::compile(pattern, kRegexMemoryBytes);
    if (!ours) continue;  // too many groups
    const PcrePattern theirs(pattern);
    ASSERT_NE(theirs.code, nullptr) << pattern;
    std::string text;
    for (size_t c = random() % 12; c > 0; --c) text += "aab/1.\xff"[random() % 7];
    Regex::Match match;
    const bool found = ours->search(text, match);
    const auto expected = theirs.search(text);
    ASSERT_EQ(found, !expected.empty()) << pattern << " in " << text;
    if (!found) continue;
    ++matched;
    ASSERT_EQ(match.groups[0].data() - text.data(), expected[0].first) << pattern << " in " << text;
    ASSERT_EQ(match.groups[0].size(), expected[0].second - expected[0].first) << pattern << " in " << text;
  }
  EXPECT_GT(matched, 1'000u);
}

// Matches whole texts, like route conditions. The matched texts are within the reported bounds.
TEST(Regex, TakesWholeTextsAsPcreDoesAndWithinItsBounds) {
  std::mt19937 random(15);
  size_t taken = 0, bounded = 0;
  for (int i = 0; i < 4'000; ++i) {
    const std::string pattern = random_pattern(random, 1);
    const Result<Regex> ours = Regex::compile(pattern, kRegexMemoryBytes);
    if (!ours) continue;  // too many groups
    const std::optional<Regex::Bounds> bounds = Regex::bounds_of(pattern, kRegexMemoryBytes);
    const PcrePattern theirs("^(?:" + pattern + ")$");
    ASSERT_NE(theirs.code, nullptr) << pattern;
    bounded += bounds ? 1 : 0;
    for (int t = 0; t < 8; ++t) {
      std::string text;
      for (size_t c = random() % 5; c > 0; --c) text += "aab/1.\xff"[random() % 7];
      const bool takes = ours->takes_whole(text);
      ASSERT_EQ(takes, !theirs.search(text).empty()) << pattern << " in " << text;
      if (!takes) continue;
      ++taken;
      if (bounds) ASSERT_TRUE(bounds->first <= text && text <= bounds->second) << pattern << " in " << text;
    }
  }
  EXPECT_GT(taken, 1'000u);
  EXPECT_GT(bounded, 1'000u);
}

TEST(Regex, IsCompiledOnceForAllWhoUseItAtOneTime) {
  const Result<Regex> first = Regex::shared("shared[0-9]+", kRegexMemoryBytes);
  const Result<Regex> second = Regex::shared("shared[0-9]+", kRegexMemoryBytes);
  ASSERT_TRUE(first && second);
  EXPECT_TRUE(first->takes_whole("shared7") && second->takes_whole("shared7"));
  EXPECT_FALSE(second->takes_whole("shared"));
  EXPECT_FALSE(Regex::shared("(", kRegexMemoryBytes));
  for (int i = 0; i < 1'000; ++i) EXPECT_TRUE(Regex::shared("gone" + std::to_string(i), kRegexMemoryBytes));
  EXPECT_TRUE(first->takes_whole("shared7"));
}

TEST(Regex, GroupsAreThoseOfPcre) {
  const std::string pattern = "^/([a-z]+)/(\\d+)(?:/(.*))?$";
  const Result<Regex> ours = Regex::compile(pattern, kRegexMemoryBytes);
  ASSERT_TRUE(ours);
  EXPECT_EQ(ours->groups(), 3u);
  const PcrePattern theirs(pattern);
  for (const std::string text : {"/users/12/x/y", "/users/12", "/a/1/"}) {
    Regex::Match match;
    ASSERT_TRUE(ours->search(text, match));
    const auto expected = theirs.search(text);
    for (size_t i = 0; i < match.count; ++i) {
      const std::string wanted =
          i < expected.size() ? text.substr(expected[i].first, expected[i].second - expected[i].first) : "";
      EXPECT_EQ(match.groups[i], wanted) << text << " " << i;
    }
  }
}

TEST(Regex, IsRefusedIfItIsTooLargeOrNoneOfRe2) {
  for (const char* pattern : {"(", "(?=a)", "(a)\\1", "((((((((((a))))))))))", "(?:a{1000}){1000}"}) {
    EXPECT_FALSE(Regex::compile(pattern, kRegexMemoryBytes)) << pattern;
  }
  // A pattern for which backtracking engines need exponential time.
  const Result<Regex> evil = Regex::compile("(a*)*b", kRegexMemoryBytes);
  ASSERT_TRUE(evil);
  Regex::Match match;
  EXPECT_FALSE(evil->search(std::string(20'000, 'a'), match));
}

// --- through the proxy

class TransformTest : public ::testing::Test {
 protected:
  TransformTest() : origin_(Origin::says("x")) {}
  // The route is "/u/{id}/*".
  Route& prepare(const std::function<void(TransformPolicy&)>& set) {
    auto part = std::make_shared<TransformPolicy>();
    set(*part);
    edge_.model.policies.push_back({"shape", false, {{"transform", part}}});
    Route& route = edge_.add_route("/u/{id}/*", edge_.add_pool("p", {origin_.endpoint()}));
    route.policies = {0};
    return route;
  }
  Answer with(const std::string& fields = "", const std::string& target = "/u/7/x?a=1") {
    return ask(edge_.endpoint(), get(target, "a.test", fields));
  }
  uint64_t failures() { return edge_.metric("tidegate_l7_failures_total{reason=\"not_transformable\"}"); }
  Edge edge_;
  Origin origin_;
};

void shaped(TransformPolicy& part) {
  part.path = TransformPath{"/users/{path.id}", "/u/7", ""};
  part.query = {edit(&TransformEdit::set, "who", "{client}")};
  part.host = "api.internal";
  part.request_headers = {edit(&TransformEdit::set, "X-Real-IP", "{client}"),
                          edit(&TransformEdit::set, "X-Team", "{header.x-org}"),
                          edit(&TransformEdit::remove, "X-Secret"), rename("X-Old", "X-New")};
  part.response_headers = {edit(&TransformEdit::set, "X-Served", "{status} {route}"),
                           edit(&TransformEdit::remove, "Server"), replace("Location", "^http://", "https://")};
}

constexpr const char* kShapedFields =
    "X-Real-IP: 6.6.6.6\r\nX_Team: forged\r\nX-Secret: 1\r\nX-Old: 2\r\nX-Org: blue\r\n";

TEST_F(TransformTest, TheBackendGetsTheRequestAsItIsChangedAndTheClientTheAnswer) {
  Origin origin([](const std::string&, Wire& wire) {
    return wire.send(Origin::ok("x", "Server: s\r\nLocation: http://b.test/\r\n"));
  });
  prepare(shaped);
  edge_.model.pools[0].backends[0].port = origin.endpoint().port;
  edge_.start();
  const Answer answer = with(kShapedFields);
  ASSERT_EQ(answer.status, 200);
  const std::string head = origin.last_head();
  EXPECT_EQ(head.rfind("GET /users/7/x?a=1&who=127.0.0.1 HTTP/1.1\r\nHost: api.internal\r\n", 0), 0u) << head;
  EXPECT_NE(head.find("X-Forwarded-Host: a.test\r\n"), std::string::npos) << head;
  EXPECT_NE(head.find("X-Real-IP: 127.0.0.1\r\n"), std::string::npos) << head;
  EXPECT_NE(head.find("X-Team: blue\r\n"), std::string::npos) << head;
  EXPECT_NE(head.find("X-New: 2\r\n"), std::string::npos) << head;
  for (const char* gone : {"6.6.6.6", "forged", "X-Secret", "X-Old"})
    EXPECT_EQ(head.find(gone), std::string::npos) << gone;
  EXPECT_EQ(answer.field("x-served"), "200 r1") << answer.head;
  EXPECT_EQ(answer.field("server"), "");
  EXPECT_EQ(answer.field("location"), "https://b.test/");
  EXPECT_EQ(edge_.metric("tidegate_l7_policy_verdicts_total{policy=\"shape\",kind=\"transform\",verdict=\"passed\"}"),
            1u);
}

TEST_F(TransformTest, Http2BackendsAndClientsSeeTheSame) {
  std::mutex mutex;
  std::map<std::string, std::string> head;
  Http2Origin origin([&](const Http2Origin::Request& request) {
    const std::lock_guard lock(mutex);
    head = request.fields;
    return Http2Origin::Answer{};
  });
  prepare(shaped);
  edge_.model.pools[0].backends[0].port = origin.endpoint().port;
  edge_.model.pools[0].protocol = BackendProtocol::h2;
  edge_.start();
  Http2Client client(edge_.endpoint());
  Http2Fields fields = Http2Client::request("/u/7/x?a=1");
  fields.insert(fields.end(), {{"x-org", "blue"}, {"x_team", "forged"}});
  const int32_t stream = client.submit(fields);
  ASSERT_TRUE(client.finish(stream));
  EXPECT_EQ(client.result(stream).fields["x-served"], "200 r1");
  const std::lock_guard lock(mutex);
  EXPECT_EQ(head.at(":path"), "/users/7/x?a=1&who=127.0.0.1");
  EXPECT_EQ(head.at(":authority"), "api.internal");
  EXPECT_EQ(head.at("x-team"), "blue");
  EXPECT_EQ(head.count("x_team"), 0u);
}

TEST_F(TransformTest, ARequestThatCannotBeTransformedIsRefusedAndItsNeighbourServed) {
  prepare([](TransformPolicy& part) { part.path = TransformPath{"/t/{header.x-tenant}/{path.id}", "", ""}; });
  edge_.start();
  EXPECT_EQ(with("X-Tenant: ..\r\n").status, 400);
  EXPECT_EQ(with("X-Tenant: " + std::string(kTransformTargetBytes / 2, '~') +
                 std::string(kTransformTargetBytes / 6, '/') + "\r\n")
                .status,
            400);
  EXPECT_EQ(failures(), 2u);
  EXPECT_EQ(origin_.requests(), 0u);
  EXPECT_EQ(with("X-Tenant: blue green\r\n").status, 200);
  EXPECT_EQ(origin_.last_head().rfind("GET /t/blue%20green/7?a=1 ", 0), 0u) << origin_.last_head();
  EXPECT_EQ(failures(), 2u);
}

TEST_F(TransformTest, ABodyAndItsLengthGoAlong) {
  Origin origin([](const std::string& head, Wire& wire) {
    return wire.send(
        Origin::ok(head.find("transfer-encoding") == std::string::npos ? wire.read_exactly(5) : "chunked"));
  });
  prepare([](TransformPolicy& part) { part.path = TransformPath{"/in", "", ""}; });
  edge_.model.pools[0].backends[0].port = origin.endpoint().port;
  edge_.start();
  const std::string put = "PUT /u/7/x HTTP/1.1\r\nHost: a\r\n";
  EXPECT_EQ(ask(edge_.endpoint(), put + "Content-Length: 5\r\n\r\nhello").body, "hello");
  EXPECT_EQ(origin.last_head().rfind("PUT /in HTTP/1.1\r\n", 0), 0u);
}

TEST_F(TransformTest, ARetryIsTransformedOnceAndAlike) {
  std::atomic<int> requests{0};
  Origin origin([&](const std::string&, Wire& wire) { return ++requests > 1 && wire.send(Origin::ok("x")); });
  Origin other([&](const std::string&, Wire& wire) { return ++requests > 1 && wire.send(Origin::ok("x")); });
  prepare([](TransformPolicy& part) {
    part.path = TransformPath{"/in{path}", "", ""};
    part.request_headers = {edit(&TransformEdit::add, "X-One", "1")};
  });
  edge_.model.pools[0].backends[0].port = origin.endpoint().port;
  edge_.model.pools[0].backends.push_back(edge_.model.pools[0].backends[0]);
  edge_.model.pools[0].backends[1].name = "b2";
  edge_.model.pools[0].backends[1].port = other.endpoint().port;
  edge_.start();
  EXPECT_EQ(with().status, 200);
  EXPECT_EQ(requests, 2);
  EXPECT_EQ(origin.last_head(), other.last_head());
  EXPECT_EQ(origin.last_head().rfind("GET /in/u/7/x?a=1 ", 0), 0u) << origin.last_head();
}

TEST_F(TransformTest, ACacheKeepsAnswersByTheUrlOfTheClientAndRevalidatesThemTransformed) {
  const StateDir state;
  edge_.state_dir = state.path;
  edge_.model.nodes[0].cache.enabled = true;
  Origin origin([](const std::string&, Wire& wire) {
    return wire.send(Origin::ok("x", "Cache-Control: max-age=0, stale-while-revalidate=600\r\nETag: \"v\"\r\n"));
  });
  Route& route = prepare([](TransformPolicy& part) {
    part.path = TransformPath{"/users/{path.id}", "", ""};
    part.response_headers = {edit(&TransformEdit::set, "X-For", "{client}")};
  });
  route.cache.enabled = true;
  edge_.model.pools[0].backends[0].port = origin.endpoint().port;
  edge_.start();
  EXPECT_EQ(with().status, 200);
  ASSERT_EQ(origin.requests(), 1u);
  const Answer stale = with();
  EXPECT_EQ(stale.status, 200);
  EXPECT_EQ(stale.field("x-for"), "127.0.0.1") << "hits have it too";
  ASSERT_TRUE(edge_.run_until([&] { return origin.requests() == 2; }));
  EXPECT_EQ(origin.last_head().rfind("GET /users/7?a=1 ", 0), 0u) << origin.last_head();
  EXPECT_NE(origin.last_head().find("If-None-Match: \"v\""), std::string::npos) << origin.last_head();
}

TEST_F(TransformTest, AnEditOfAnAnswerThatFailsIsLeftOutAndCounted) {
  prepare([](TransformPolicy& part) {
    part.response_headers = {edit(&TransformEdit::set, "X-Big", "{header.x-big}{header.x-big}"),
                             edit(&TransformEdit::set, "X-Small", "1")};
  });
  edge_.start();
  const Answer answer = with("X-Big: " + std::string(kTransformValueBytes / 2 + 1, 'b') + "\r\n");
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(answer.field("x-big"), "");
  EXPECT_EQ(answer.field("x-small"), "1");
  EXPECT_EQ(edge_.metric("tidegate_l7_transform_left_total{policy=\"shape\",reason=\"value_too_large\"}"), 1u);
}

TEST_F(TransformTest, ExplainTellsWhatTheBackendWouldGet) {
  prepare(shaped);
  edge_.start();
  HttpRequest request;
  request.query = "url=http://a.test/u/7/x%3Fa%3D1&client=192.0.2.9";
  const nlohmann::json entry = (*edge_.proxy().explain(request))["policies"][0];
  EXPECT_EQ(entry["stage"], "transform");
  EXPECT_EQ(entry["target"], "/users/7/x?a=1&who=192.0.2.9") << entry.dump();
  EXPECT_EQ(entry["host"], "api.internal");
  EXPECT_EQ(entry["fields"]["X-Real-IP"], "192.0.2.9");
}

}  // namespace tidegate::l7::test::transform_test
