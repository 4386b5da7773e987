// SPDX-License-Identifier: Apache-2.0
// Policies in a document: where they are bound, and what each kind refuses.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "conf/limits.h"
#include "conf/live_state.h"
#include "conf/model.h"
#include "conf/model/listener.h"
#include "conf/model/policy.h"
#include "conf/model/route.h"
#include "conf/policy/compress.h"
#include "conf/policy/limit.h"
#include "conf/policy/transform.h"
#include "conf/validate.h"
#include "conf/warnings.h"
#include "tests/unit/conf/documents.h"
#include "tests/unit/made_schema.h"

namespace tidegate::policies_test {

using testing::content;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::load_text;
using testing::Loaded;

Loaded with_limit(const std::string& keys) { return load_text("policies:\n  - {name: q, limit: {" + keys + "}}\n"); }

TEST(Policies, AreNamedByListenersAndRoutes) {
  const Loaded loaded = load_text(
      "policies:\n"
      "  - {name: a, limit: {requests: 5}}\n"
      "  - {name: b, everywhere: true, limit: {requests: 7, per: 1m, by: [client, 'header:X-Key']}}\n"
      "listeners: [{name: l, bind: ['127.0.0.1:80'], policies: [a]}]\n"
      "routes: [{name: r, status: 204, policies: [b, a]}]\n");
  ASSERT_NE(loaded.model, nullptr) << loaded.rendered();
  EXPECT_THAT(loaded.model->listeners[0].policies, ElementsAre(0));
  EXPECT_THAT(loaded.model->routes[0].policies, ElementsAre(1, 0));
  const auto* limit = loaded.model->policies[1].part<LimitPolicy>("limit");
  ASSERT_NE(limit, nullptr);
  EXPECT_EQ(limit->requests, 7u);
  EXPECT_EQ(limit->per_ms, 60'000u);
  EXPECT_TRUE(loaded.model->policies[1].everywhere);
}

TEST(Policies, RefuseAMisspeltNameWithAHint) {
  const Loaded loaded = load_text(
      "policies: [{name: per-client, limit: {requests: 5}}]\n"
      "routes: [{name: r, status: 204, policies: [per-clinet]}]\n");
  ASSERT_THAT(loaded.codes(), ElementsAre("no_such_name"));
  EXPECT_EQ(loaded.faults[0].line, 2u);
  EXPECT_EQ(loaded.faults[0].hint, "did you mean 'per-client'?");
}

TEST(Policies, RefuseAMisspeltKindAndAPolicyThatDoesNothing) {
  const Loaded misspelt = load_text("policies: [{name: q, limt: {requests: 5}}]\n");
  ASSERT_THAT(misspelt.codes(), ElementsAre("unknown_key"));
  EXPECT_EQ(misspelt.faults[0].hint, "did you mean 'limit'?");
  EXPECT_THAT(load_text("policies: [{name: q}]\n").codes(), ElementsAre("missing_key"));
}

TEST(Policies, WarnOfOneThatNothingUses) {
  const auto warned = [](const std::string& text) {
    const Loaded loaded = load_text(text);
    std::vector<std::string> codes;
    for (const Fault& fault : find_warnings(*loaded.document, *loaded.model, 0)) codes.push_back(fault.code);
    return codes;
  };
  EXPECT_THAT(warned("policies: [{name: q, limit: {requests: 5}}]\n"), ElementsAre("unused"));
  EXPECT_THAT(warned("policies: [{name: q, everywhere: true, limit: {requests: 5}}]\n"), IsEmpty());
}

// --- transform, split, fault

// Each policy is checked against the routes to which it applies, and the fault names the first of them.
TEST(TransformOfRoutes, IsJudgedByTheRoutesThatNameIt) {
  const auto judged = [](const std::string& keys, const std::string& listener) {
    return load_text(
        "policies:\n"
        "  - {name: other, transform: {request_headers: [{set: X-A, value: a}]}}\n"
        "  - {name: q" +
        keys +
        "}\n"
        "pools: [{name: a, backends: [{name: b, addresses: [192.0.2.1], port: 80}]}]\n"
        "listeners: [{name: l, bind: ['127.0.0.1:80']" +
        listener +
        "}]\n"
        "routes:\n"
        "  - {name: cached, path: '/a/{user}', pool: a, cache: {enabled: true}, policies: [other]}\n"
        "  - {name: plain, path: '/b/{id}', pool: a, policies: [other, q]}\n"
        "  - {name: second, path: '/c/{id}', pool: a, cache: {enabled: true}, policies: [q, other]}\n");
  };
  const std::string client = ", transform: {request_headers: [{set: X-Client, value: '{client}'}]}";
  const Loaded named = judged(client, "");
  ASSERT_THAT(named.codes(), ElementsAre("conflicting_keys"));
  EXPECT_THAT(named.rendered(), ::testing::HasSubstr("route 'second' has a cache"));
  for (const Loaded& held : {judged(client, ", policies: [q]"), judged(", everywhere: true" + client, "")}) {
    ASSERT_THAT(held.codes(), ElementsAre("conflicting_keys"));
    EXPECT_THAT(held.rendered(), ::testing::HasSubstr("route 'cached' has a cache"));
  }
  const std::string id = ", transform: {request_headers: [{set: X-Id, value: '{path.id}'}]}";
  EXPECT_THAT(judged(id, "").codes(), IsEmpty());
  const Loaded misspelt = judged(", transform: {request_headers: [{set: X-Id, value: '{path.ids}'}]}", "");
  ASSERT_THAT(misspelt.codes(), ElementsAre("bad_value"));
  EXPECT_THAT(misspelt.rendered(), ::testing::HasSubstr("of the path of route 'plain'"));
}

// A document with one policy that route r names; `route`: further keys of that route.
Loaded with_policy(const std::string& part, const std::string& route = "") {
  return load_text("policies:\n  - {name: q, " + part +
                   "}\npools:\n  - {name: a, backends: [{name: b, addresses: [192.0.2.1], port: 80}]}\n"
                   "  - {name: c, backends: [{name: b, addresses: [192.0.2.2], port: 80, labels: [new]}]}\n"
                   "routes:\n  - {name: r, path: '/u/{id}/*', pool: a, policies: [q]" +
                   route + "}\n");
}

TEST(TransformKeys, AreReadAsTheyAreMeant) {
  const Loaded loaded = with_policy(
      "transform: {path: {value: '/v2/{path.id}', prefix: /u}, host: '{id}.test', query: [{set: a, value: '{client}'}],"
      " request_headers: [{remove: X-A}, {rename: X-B, to: X-C}, {replace: X-D, match: '(a+)$', value: '{match.1}'}],"
      " response_headers: [{add: X-E, value: '{status}'}]}");
  ASSERT_THAT(loaded.codes(), IsEmpty()) << loaded.rendered();
  const auto* transform = loaded.model->policies[0].part<TransformPolicy>("transform");
  ASSERT_TRUE(transform->path);
  EXPECT_EQ(transform->path->prefix, "/u");
  EXPECT_EQ(transform->request_headers[1].action(), TransformEdit::Action::rename);
  EXPECT_EQ(transform->request_headers[2].name(), "X-D");
  EXPECT_THAT(with_policy("transform: {path: {prefix: /u, value: ''}}").codes(), IsEmpty()) << "a prefix is cut off";
}

TEST(TransformKeys, RefuseTextsAndPatternsThatAreWrong) {
  const auto code_of = [](const std::string& part) {
    const std::vector<std::string> codes = with_policy("transform: {" + part + "}").codes();
    return codes.empty() ? "" : codes[0];
  };
  for (const char* part : {"path: {value: '/{nobody.x}'}",
                           "path: {value: '/{id'}",
                           "path: {value: '/id}'}",
                           "path: {value: '/{other}'}",
                           "path: {value: v2}",
                           "path: {value: '{header.x}'}",
                           "path: {value: '/a?b=1'}",
                           "path: {value: '/a b'}",
                           R"(path: {value: '/n/\1', match: '^/u/(.*)$'})",
                           "path: {value: '/100%'}",
                           "path: {value: '/%zz/a'}",
                           "path: {value: '/straße'}",
                           "path: {value: '/{status}'}",
                           "path: {value: '/{match.1}'}",
                           "path: {value: '/{match.2}', match: '(a)'}",
                           "path: {value: '/', match: '('}",
                           "path: {value: '/', match: '(?=a)'}",
                           "path: {value: '/', match: '(a)\\1'}",
                           "path: {value: '/', prefix: u}",
                           "host: '{match.0}'",
                           "host: '{jwt.}'",
                           "query: [{set: a, value: '{'}]",
                           "request_headers: [{set: X-A, value: '{header.a b}'}]",
                           "request_headers: [{set: 'a b', value: x}]",
                           "request_headers: [{replace: X-A, match: '[', value: x}]"}) {
    EXPECT_EQ(code_of(part), "bad_value") << part;
  }
  for (const char* part : {"path: {value: /, prefix: /a, match: b}", "query: [{set: a, add: b, value: c}]",
                           "query: [{value: c}]", "request_headers: [{set: '', value: c}]"}) {
    EXPECT_EQ(code_of(part), "exactly_one") << part;
  }
  for (const char* part : {"", "query: [{set: a}]", "query: [{rename: a}]", "query: [{replace: a, value: b}]"}) {
    EXPECT_EQ(code_of(part), "missing_key") << part;
  }
  for (const char* part : {"query: [{remove: a, value: b}]", "query: [{set: a, value: b, to: c}]",
                           "query: [{add: a, value: b, match: c}]"}) {
    EXPECT_EQ(code_of(part), "without_effect") << part;
  }
  const auto hint_of = [](const std::string& text) {
    const Loaded loaded = with_policy("transform: {path: {value: '/" + text + "'}}");
    return loaded.faults.empty() ? "(no fault)" : loaded.faults[0].hint + loaded.rendered();
  };
  for (const auto& [text, hint] : {std::pair("{cleint}", "did you mean 'client'?"),
                                   {"{idd}", "did you mean 'id'?"},
                                   {"{heder.x}", "did you mean 'header.'?"},
                                   {"{tls.verison}", "did you mean 'tls.version'?"},
                                   {"{1}", "a group of `match` is {match.1}"}}) {
    EXPECT_THAT(hint_of(text), ::testing::HasSubstr(hint)) << text;
  }
  std::string many;
  for (int i = 0; i < 33; ++i) many += "{remove: a},";
  EXPECT_EQ(code_of("query: [" + many + "]"), "out_of_range");
}

// A document that could set them could turn one message into two, or forge what the proxy says.
TEST(TransformKeys, RefuseFieldsThatTheProxyWritesItself) {
  for (const char* name : {"Content-Length", "transfer-encoding", "Connection", "Upgrade", "TE", "Trailer", "Host",
                           "Expect", "X-Forwarded-For", "X-Request-Id", "Via"}) {
    const std::string set = std::string("transform: {request_headers: [{set: ") + name + ", value: x}]}";
    EXPECT_THAT(with_policy(set).codes(), ElementsAre("bad_value")) << name;
    const std::string to = std::string("transform: {request_headers: [{rename: X-A, to: ") + name + "}]}";
    EXPECT_THAT(with_policy(to).codes(), ElementsAre("bad_value")) << name;
  }
  for (const char* name : {"Content-Length", "Content-Encoding", "Connection", "Date", "Content-Range"}) {
    const std::string remove = std::string("transform: {response_headers: [{remove: ") + name + "}]}";
    EXPECT_THAT(with_policy(remove).codes(), ElementsAre("bad_value")) << name;
  }
  EXPECT_THAT(with_policy("transform: {request_headers: [{set: X-Real-IP, value: '{client}'}]}").codes(), IsEmpty());
}

TEST(TransformKeys, RefuseWhatACacheWouldGiveToOthers) {
  const auto codes = [](const std::string& part) {
    return with_policy("transform: {" + part + "}", ", cache: {enabled: true}").codes();
  };
  for (const char* part :
       {"path: {value: '/{client}'}", "host: '{identity}.test'", "query: [{set: a, value: '{jwt.sub}'}]",
        "request_headers: [{set: X-A, value: '{header.x-b}'}]", "request_headers: [{rename: X-A, to: X-B}]",
        "request_headers: [{replace: X-A, match: a, value: b}]", "request_headers: [{set: Authorization, value: a}]"}) {
    EXPECT_THAT(codes(part), ElementsAre("conflicting_keys")) << part;
  }
  for (const char* part : {"path: {value: '/{match.1}', match: '(a)'}", "path: {value: '/{id}'}", "host: '{id}.{host}'",
                           "query: [{set: a, value: '{query.b}'}, {remove: b}]",
                           "request_headers: [{set: X-A, value: '{path}'}, {remove: X-B}]",
                           "response_headers: [{set: X-A, value: '{client}'}]"}) {
    EXPECT_THAT(codes(part), IsEmpty()) << part;
  }
}

TEST(TransformKeys, RefuseChangesOfBodiesThatAreWrong) {
  const auto codes = [](const std::string& keys, const std::string& route = "") {
    return with_policy("transform: {response_json: {" + keys + "}}", route).codes();
  };
  EXPECT_THAT(codes("pick: [a, b.c], edits: [{redact: a.d}, {rename: e, to: f}, {set: g, value: '{json.a} {status}'}]"),
              IsEmpty());
  EXPECT_THAT(codes("body: '{{\"a\": {json.a}}}', most: 1MB"), IsEmpty());
  EXPECT_THAT(codes(""), ElementsAre("missing_key"));
  EXPECT_THAT(codes("pick: [a], body: '{{}}'"), ElementsAre("exactly_one"));
  for (const char* path : {"'a..b'", "'.'", "'a.'", "a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a"}) {
    EXPECT_THAT(codes(std::string("pick: [") + path + "]"), ElementsAre("bad_value")) << path;
  }
  EXPECT_THAT(codes("body: '{a'"), ElementsAre("bad_value"));
  EXPECT_THAT(codes("body: '{match.1}'"), ElementsAre("bad_value"));
  EXPECT_THAT(codes("edits: [{remove: a, redact: b}]"), ElementsAre("exactly_one"));
  EXPECT_THAT(codes("edits: [{rename: a}]"), ElementsAre("missing_key"));
  EXPECT_THAT(codes("edits: [{remove: a, to: b}]"), ElementsAre("without_effect"));
  EXPECT_THAT(codes("pick: [a], most: 2MB"), ElementsAre("out_of_range"));
  EXPECT_THAT(codes("pick: [a]", ", cache: {enabled: true}"), ElementsAre("conflicting_keys"));
  EXPECT_THAT(with_policy("transform: {host: '{json.a}'}").codes(), ElementsAre("bad_value"));
  EXPECT_THAT(with_policy("transform: {request_json: {body: '{status}'}}").codes(), ElementsAre("bad_value"));
}

TEST(TransformKeys, ReadTheSchemaOfProtobuf) {
  const std::string text = R"(syntax = "proto3"; package shop.v1; import "google/protobuf/struct.proto";)"
                           "message Order { string id = 1; google.protobuf.Value more = 2; }";
  const std::map<std::string, std::shared_ptr<const std::string>> files = {
      {"shop.pb", content(test::made_schema(text))},
      {"alone.pb", content(test::made_schema(text, true))},
      {"shop.proto", content(text)},
      {"huge.pb", content(std::string(kProtobufSchemaBytes + 1, ' '))}};
  const auto with = [&](const std::string& keys) {
    return load_text("policies:\n  - {name: q, transform: {request_json: {" + keys + "}}}\n", files);
  };
  EXPECT_THAT(with("to: protobuf, schema_file: shop.pb, message: shop.v1.Order").codes(), IsEmpty());
  EXPECT_THAT(with("from: protobuf, to: xml, schema_file: shop.pb, message: shop.v1.Order").codes(), IsEmpty());
  EXPECT_THAT(with("from: protobuf, to: protobuf, schema_file: shop.pb, message: shop.v1.Order").codes(),
              ElementsAre("missing_key"));
  EXPECT_THAT(with("to: protobuf").codes(), ElementsAre("missing_key", "missing_key"));
  EXPECT_THAT(with("to: xml, schema_file: shop.pb, message: a").codes(),
              ElementsAre("without_effect", "without_effect"));
  EXPECT_THAT(with("to: protobuf, schema_file: none.pb, message: a").codes(), ElementsAre("unreadable_file"));
  EXPECT_THAT(with("to: protobuf, schema_file: huge.pb, message: a").codes(), ElementsAre("out_of_range"));
  const Loaded misspelt = with("to: protobuf, schema_file: shop.pb, message: shop.v1.Oder");
  ASSERT_THAT(misspelt.codes(), ElementsAre("no_such_name"));
  EXPECT_EQ(misspelt.faults[0].hint, "did you mean 'shop.v1.Order'?");
  EXPECT_THAT(with("to: protobuf, schema_file: shop.proto, message: a").rendered(),
              HasSubstr("file 'shop.proto' is no schema of Protobuf: it is no set of descriptors"));
  EXPECT_THAT(with("to: protobuf, schema_file: alone.pb, message: a").rendered(),
              HasSubstr("it lacks the file google/protobuf/struct.proto"));
}

TEST(SplitKeys, RefuseWhatCannotBeChosenOrKept) {
  const std::string two =
      "variants: [{name: new, pool: c, weight: 5, when: 'cookie:beta'}, {name: old, pool: a, weight: 95}]";
  EXPECT_THAT(with_policy("split: {" + two + ", sticky: [client, 'header:X-User']}").codes(), IsEmpty());
  EXPECT_THAT(with_policy("split: {" + two + ", sticky: [cleint]}").codes(), ElementsAre("bad_value"));
  EXPECT_THAT(with_policy("split: {variants: [{name: new, pool: c}]}").codes(), ElementsAre("missing_key"));
  EXPECT_THAT(with_policy("split: {variants: [{name: new, pool: d, weight: 1}]}").codes(), ElementsAre("no_such_name"));
  for (const char* when : {"'header:'", "'header:a b'", "cookie", "'claim:'", "'ip:1'"}) {
    EXPECT_THAT(
        with_policy(std::string("split: {variants: [{name: new, pool: c, weight: 1, when: ") + when + "}]}").codes(),
        ElementsAre("bad_value"))
        << when;
  }
  const Loaded misspelt = with_policy("split: {variants: [{name: new, pool: c, weight: 1, when: 'heder:x'}]}");
  ASSERT_THAT(misspelt.codes(), ElementsAre("bad_value"));
  EXPECT_EQ(misspelt.faults[0].hint, "did you mean 'header'?");
  EXPECT_THAT(with_policy("split: {variants: [{name: new, pool: c, weight: 1, values: [a]}]}").codes(),
              ElementsAre("without_effect"));
  EXPECT_THAT(with_policy("split: {" + two + "}", ", cache: {enabled: true}").codes(), IsEmpty());
  EXPECT_THAT(with_policy("split: {variants: [{name: a, pool: c, weight: 1}, {name: a, pool: a}]}").codes(),
              ElementsAre("duplicate_name"));
}

TEST(SplitKeys, AVariantEditsNeitherHostNorFraming) {
  const auto codes = [](const std::string& edits) {
    return with_policy("split: {variants: [{name: new, pool: c, weight: 1, " + edits + "}]}").codes();
  };
  EXPECT_THAT(codes("request_headers: {X-A: b, X-C: ''}, response_headers: {X-D: e}"), IsEmpty());
  for (const char* name : {"Host", "Content-Length", "transfer_encoding"}) {
    EXPECT_THAT(codes(std::string("request_headers: {") + name + ": x}"), ElementsAre("bad_value")) << name;
    EXPECT_THAT(codes(std::string("response_headers: {") + name + ": x}"), ElementsAre("bad_value")) << name;
  }
}

TEST(SplitKeys, APoolOfAVariantIsUsed) {
  const Loaded loaded =
      with_policy("split: {variants: [{name: new, pool: c, weight: 5}, {name: old, pool: a, weight: 95}]}");
  ASSERT_NE(loaded.model, nullptr) << loaded.rendered();
  for (const Fault& fault : find_warnings(*loaded.document, *loaded.model, 0))
    EXPECT_NE(fault.code, "unused") << loaded.rendered();
}

TEST(AggregateKeys, SayWhatEachPartIsAndWhatStandsForIt) {
  const auto codes = [](const std::string& keys, const std::string& route = "") {
    return with_policy("aggregate: {" + keys + "}", route).codes();
  };
  const auto part = [&](const std::string& keys) { return codes("parts: [{name: x, pool: c, " + keys + "}]"); };
  EXPECT_THAT(codes("parts: [{name: user, pool: c, path: '/users/{id}', query: {by: '{client}'}, pass_statuses: [404]},"
                    " {name: orders, pool: a, required: false, fallback: '[]'}], timeout: 2s, most: 64KB,"
                    " request_headers: [Authorization, Accept-Language], errors: _errors"),
              IsEmpty());
  EXPECT_THAT(codes(""), ElementsAre("missing_key"));
  EXPECT_THAT(codes("parts: [{name: x, pool: d}]"), ElementsAre("no_such_name"));
  EXPECT_THAT(codes("parts: [{name: x, pool: c}, {name: x, pool: a}]"), ElementsAre("duplicate_name"));
  EXPECT_THAT(codes("parts: [{name: errors, pool: c}]"), ElementsAre("duplicate_name"));
  for (const char* path : {"'x'", "'/a?b=1'", "'/a b'", "'/{status}'", "'/{match.1}'", "'/{json.a}'", "'/{id'"}) {
    EXPECT_THAT(part(std::string("path: ") + path), ElementsAre("bad_value")) << path;
  }
  EXPECT_THAT(part("path: '/{other}'"), ElementsAre("bad_value")) << "the route's path has no such parameter";
  EXPECT_THAT(part("query: {q: '{other}'}"), ElementsAre("bad_value"));
  EXPECT_THAT(part("fallback: '{}'"), ElementsAre("without_effect"));
  EXPECT_THAT(part("required: false, pass_statuses: [404]"), ElementsAre("without_effect"));
  EXPECT_THAT(part("required: false, fallback: '{'"), ElementsAre("bad_value"));
  EXPECT_THAT(part("pass_statuses: [500]"), ElementsAre("out_of_range"));
  for (const char* header : {"'a b'", "Range", "If-None-Match", "Accept-Encoding", "Host", "Connection"}) {
    EXPECT_THAT(codes(std::string("parts: [{name: x, pool: c}], request_headers: [") + header + "]"),
                ElementsAre("bad_value"))
        << header;
  }
  EXPECT_THAT(codes("parts: [{name: x, pool: c}]", ", cache: {enabled: true}"), ElementsAre("conflicting_keys"));
  std::string many;
  for (int i = 0; i < 17; ++i) many += (i == 0 ? "{name: p" : ", {name: p") + std::to_string(i) + ", pool: c}";
  EXPECT_THAT(codes("parts: [" + many + "]"), ElementsAre("out_of_range"));
}

TEST(MirrorKeys, NameAPoolThatIsThere) {
  EXPECT_THAT(with_policy("mirror: {pool: c, percent: 5, most: 10, timeout: 2s}").codes(), IsEmpty());
  EXPECT_THAT(with_policy("mirror: {percent: 5}").codes(), ElementsAre("missing_key"));
  EXPECT_THAT(with_policy("mirror: {pool: d}").codes(), ElementsAre("no_such_name"));
  EXPECT_THAT(with_policy("mirror: {pool: c, percent: 101}").codes(), ElementsAre("out_of_range"));
}

TEST(FaultKeys, RefuseWhatDoesNothing) {
  EXPECT_THAT(with_policy("fault: {delay: 200ms, delay_percent: 10, abort: 503}").codes(), IsEmpty());
  EXPECT_THAT(with_policy("fault: {}").codes(), ElementsAre("missing_key"));
  EXPECT_THAT(with_policy("fault: {abort: 204}").codes(), ElementsAre("out_of_range"));
  EXPECT_THAT(with_policy("fault: {abort: 503, delay_percent: 3}").codes(), ElementsAre("without_effect"));
  EXPECT_THAT(with_policy("fault: {abort: 503, header: 'a b'}").codes(), ElementsAre("bad_value"));
}

// --- compress

TEST(CompressKeys, RefuseUnknownCodingsAndTypes) {
  const auto with = [](const std::string& keys) {
    return load_text("policies:\n  - {name: q, everywhere: true, compress: {" + keys + "}}\n");
  };
  const Loaded loaded =
      with("codings: [br, gzip], types: ['text/*', 'application/*+json', image/svg+xml], minimum: 2KB");
  ASSERT_THAT(loaded.codes(), IsEmpty()) << loaded.rendered();
  const auto* compress = loaded.model->policies[0].part<CompressPolicy>("compress");
  EXPECT_THAT(compress->preference(), ElementsAre(Coding::br, Coding::gzip));
  EXPECT_EQ(compress->minimum, 2'048u);
  EXPECT_THAT(with("").codes(), IsEmpty());
  EXPECT_EQ(CompressPolicy().preference().size(), 3u);
  EXPECT_THAT(with("codings: [gzip, brotli]").codes(), ElementsAre("bad_value"));
  EXPECT_EQ(with("codings: [gzp]").faults[0].hint, "did you mean 'gzip'?");
  EXPECT_THAT(with("codings: [identity]").codes(), ElementsAre("bad_value"));
  EXPECT_THAT(with("codings: [gzip, gzip]").codes(), ElementsAre("duplicate_name"));
  EXPECT_THAT(with("minimum: 2MB").codes(), ElementsAre("out_of_range"));
  for (const char* type :
       {"text", "'*/*'", "'*'", "text/", "/html", "text/h*", "'text/html; charset=utf-8'", "'a b/c'"}) {
    EXPECT_THAT(with(std::string("types: [") + type + "]").codes(), ElementsAre("bad_value")) << type;
  }
}

TEST(CompressKeys, TypesAreComparedWithoutCaseAndParameters) {
  EXPECT_TRUE(takes_type("text/html", "Text/HTML; charset=utf-8"));
  EXPECT_TRUE(takes_type("text/html", "text/html ;charset=utf-8"));
  EXPECT_TRUE(takes_type("text/*", "text/x"));
  EXPECT_TRUE(takes_type("application/*+json", "application/problem+JSON"));
  EXPECT_FALSE(takes_type("text/*", "text/"));
  EXPECT_FALSE(takes_type("text/html", "text/htmlx"));
  EXPECT_FALSE(takes_type("application/*+json", "application/+json"));
  EXPECT_FALSE(takes_type("application/*+json", "application/json"));
  EXPECT_FALSE(takes_type("text/*", ""));
}

TEST(LimitKeys, RefuseWhatASharedQuotaCannotDo) {
  const std::string shared = ", shared: {address: '192.0.2.1:6379'}";
  EXPECT_THAT(with_limit("requests: 5" + shared).codes(), IsEmpty());
  EXPECT_THAT(with_limit("requests: 5, shared: {address: '192.0.2.1:6379', user: a, password: b, timeout: 5ms, "
                         "on_failure: closed}")
                  .codes(),
              IsEmpty());
  EXPECT_THAT(with_limit("requests: 5, shared: {}").codes(), ElementsAre("missing_key"));
  EXPECT_THAT(with_limit("requests: 5, shared: {address: redis}").codes(), ElementsAre("bad_value"));
  EXPECT_THAT(with_limit("requests: 5, wait: 1s" + shared).codes(), ElementsAre("without_effect"));
  EXPECT_THAT(with_limit("requests: 5, algorithm: sliding_window" + shared).codes(), ElementsAre("bad_value"));
  EXPECT_THAT(with_limit("requests: 20001" + shared).codes(), ElementsAre("out_of_range"));
  EXPECT_THAT(with_limit("requests: 5, shared: {address: '192.0.2.1:6379', on_failure: shut}").codes(),
              ElementsAre("no_such_choice"));
}

TEST(ConcurrencyKeys, RefuseWhatSaysNoNumberOrTwo) {
  const auto codes = [](const std::string& keys) {
    return load_text("policies:\n  - {name: q, everywhere: true, concurrency: {" + keys + "}}\n").codes();
  };
  EXPECT_THAT(codes("requests: 5"), IsEmpty());
  EXPECT_THAT(codes("requests: 5, by: [client, 'header:X-Key'], retry_after: 2s, exempt: [192.0.2.0/24]"), IsEmpty());
  EXPECT_THAT(codes("adaptive: {}"), IsEmpty());
  EXPECT_THAT(codes("adaptive: {least: 2, most: 50, initial: 10, tolerance: 1.5}"), IsEmpty());
  EXPECT_THAT(codes(""), ElementsAre("missing_key"));
  EXPECT_THAT(codes("adaptive: {enabled: false}"), ElementsAre("missing_key"));
  EXPECT_THAT(codes("requests: 0"), ElementsAre("out_of_range"));
  EXPECT_THAT(codes("requests: 5, by: [clients]"), ElementsAre("bad_value"));
  EXPECT_THAT(codes("requests: 5, adaptive: {}"), ElementsAre("without_effect"));
  EXPECT_THAT(codes("by: [client], adaptive: {}"), ElementsAre("without_effect"));
  EXPECT_THAT(codes("adaptive: {least: 60, most: 50}"), ElementsAre("out_of_range"));
  EXPECT_THAT(codes("adaptive: {initial: 60, most: 50}"), ElementsAre("out_of_range"));
  EXPECT_THAT(codes("adaptive: {initial: 2}"), ElementsAre("out_of_range")) << "least is 4";
  EXPECT_THAT(codes("adaptive: {most: 10}"), IsEmpty()) << "the default of initial gives way";
  EXPECT_THAT(codes("requests: 5, low_share: 0.2"), ElementsAre("without_effect"));
  EXPECT_THAT(codes("requests: 5, low_priority: [report]"), ElementsAre("no_such_name"));
  EXPECT_THAT(codes("connections: 4, by: [client, route]"), IsEmpty());
  EXPECT_THAT(codes("requests: 5, by: [pool, 'claim:org']"), IsEmpty());
  EXPECT_THAT(codes("connections: 4, adaptive: {}"), ElementsAre("without_effect"));
  EXPECT_THAT(codes("connections: 4, wait: 1s"), ElementsAre("without_effect"));
  const Loaded loaded = load_text(
      "policies: [{name: q, everywhere: true, concurrency: {adaptive: {}, low_priority: [report]}}]\n"
      "listeners: [{name: l, bind: ['127.0.0.1:80']}]\n"
      "routes: [{name: reports, status: 204}]\n");
  ASSERT_THAT(loaded.codes(), ElementsAre("no_such_name"));
  EXPECT_EQ(loaded.faults[0].hint, "did you mean 'reports'?");
}

TEST(ConcurrencyKeys, LanesSayWhoseTheyAreAndHowManyTheyHave) {
  const auto codes = [](const std::string& keys) {
    return load_text("policies:\n  - {name: q, everywhere: true, concurrency: {" + keys + "}}\n").codes();
  };
  const std::string tenant = "requests: 5, tenant: 'header:X-Tenant', ";
  EXPECT_THAT(codes(tenant + "lanes: [{name: gold, values: [a, b], requests: 9}, {name: c, requests: 1}]"), IsEmpty());
  EXPECT_THAT(codes("requests: 5, tenant: 'claim:org', lanes: [{name: gold, requests: 9}]"), IsEmpty());
  EXPECT_THAT(codes("requests: 5, tenant: identity, lanes: [{name: gold, requests: 9}]"), IsEmpty());
  EXPECT_THAT(codes("adaptive: {}, tenant: identity, lanes: [{name: gold, share: 0.5}]"), IsEmpty());
  EXPECT_THAT(codes("requests: 5, lanes: [{name: gold, requests: 9}]"), ElementsAre("missing_key"));
  EXPECT_THAT(codes("requests: 5, tenant: 'header:X-Tenant'"), ElementsAre("without_effect"));
  EXPECT_THAT(codes("requests: 5, tenant: client, lanes: [{name: gold, requests: 9}]"), ElementsAre("bad_value"));
  EXPECT_THAT(codes("connections: 5, tenant: identity, lanes: [{name: gold, requests: 9}]"),
              ElementsAre("missing_key"));
  EXPECT_THAT(codes(tenant + "lanes: [{name: gold}]"), ElementsAre("missing_key"));
  EXPECT_THAT(codes(tenant + "lanes: [{name: gold, share: 0.5}]"), ElementsAre("without_effect"));
  EXPECT_THAT(codes("adaptive: {}, tenant: identity, lanes: [{name: gold, requests: 5}]"),
              ElementsAre("without_effect"));
  EXPECT_THAT(codes(tenant + "lanes: [{name: other, requests: 5}]"), ElementsAre("bad_value"));
  EXPECT_THAT(codes(tenant + "lanes: [{name: gold, values: [''], requests: 5}]"), ElementsAre("bad_value"));
  EXPECT_THAT(codes(tenant + "lanes: [{name: a, values: [t], requests: 5}, {name: b, values: [t], requests: 5}]"),
              ElementsAre("duplicate_name"));
  std::string many;
  for (int i = 0; i < 65; ++i) many += (i == 0 ? "{name: l" : ", {name: l") + std::to_string(i) + ", requests: 1}";
  EXPECT_THAT(codes(tenant + "lanes: [" + many + "]"), ElementsAre("out_of_range"));
}

TEST(DeadlineKeys, RefuseFieldsThatTheProxyUses) {
  const auto codes = [](const std::string& keys) {
    return load_text("policies:\n  - {name: q, everywhere: true, deadline: {" + keys + "}}\n").codes();
  };
  EXPECT_THAT(codes("header: X-Timeout, unit: s, default: 5s, most: 5s"), IsEmpty());
  EXPECT_THAT(codes("unit: ms"), ElementsAre("missing_key"));
  EXPECT_THAT(codes("header: X-Timeout, unit: h"), ElementsAre("no_such_choice"));
  for (const char* header : {"''", "'a b'", "host", "Content-Length", "Grpc-Timeout", "Authorization", "'x:'"}) {
    EXPECT_THAT(codes(std::string("header: ") + header), ElementsAre("bad_value")) << header;
  }
  EXPECT_THAT(codes("header: X-Timeout, default: 6s, most: 5s"), ElementsAre("out_of_range"));
}

TEST(LimitKeys, RefuseWhatCannotBeCounted) {
  EXPECT_THAT(with_limit("requests: 5").codes(), IsEmpty());
  EXPECT_THAT(with_limit("requests: 5, by: [client, route, host, 'header:A', 'cookie:b']").codes(), IsEmpty());
  EXPECT_THAT(with_limit("per: 1m").codes(), ElementsAre("missing_key"));
  EXPECT_THAT(with_limit("requests: 0").codes(), ElementsAre("out_of_range"));
  for (const char* word : {"clients", "'header:'", "'header:a b'", "'cookie'", "''", "'query:x'"}) {
    const Loaded loaded = with_limit(std::string("requests: 5, by: [route, ") + word + "]");
    ASSERT_THAT(loaded.codes(), ElementsAre("bad_value")) << word;
    EXPECT_EQ(loaded.faults[0].pointer, "/policies/0/limit/by/1");
  }
  EXPECT_EQ(with_limit("requests: 5, by: [clients]").faults[0].hint, "did you mean 'client'?");
  EXPECT_THAT(with_limit("requests: 5, by: ['header:a', 'header:b', 'header:c', 'header:d', 'header:e', 'header:f', "
                         "'header:g', 'header:h', 'header:i']")
                  .codes(),
              ElementsAre("out_of_range"));
}

TEST(LimitKeys, RefuseACountryThatNoDatabaseTells) {
  const Loaded loaded = with_limit("requests: 5, by: [route, country]");
  ASSERT_THAT(loaded.codes(), ElementsAre("missing_key"));
  EXPECT_EQ(loaded.faults[0].pointer, "/policies/0/limit/by/1");
}

TEST(LimitKeys, TakeTheQuotaOfAnOperatorIfTheLimitCanHaveIt) {
  LimitPolicy limit;
  limit.requests = 5;
  LiveState live_state;
  EXPECT_FALSE(take_quota(live_state, "q", limit));
  live_state.overrides["limit/q"] = {OverrideState::quota, "ops", "", 1, 70, 100};
  EXPECT_FALSE(take_quota(live_state, "other", limit));
  EXPECT_TRUE(take_quota(live_state, "q", limit));
  EXPECT_EQ(limit.requests, 70u);
  EXPECT_EQ(limit.burst, 100u);
  live_state.overrides["limit/q"].requests = 2'000'000;
  EXPECT_FALSE(take_quota(live_state, "q", limit)) << "a version came whose `per` is shorter";
  EXPECT_EQ(limit.requests, 70u);
  limit.algorithm = LimitAlgorithm::sliding_window;
  limit.burst = 0;
  live_state.overrides["limit/q"].requests = 80;
  EXPECT_TRUE(take_quota(live_state, "q", limit));
  EXPECT_EQ(limit.burst, 0u) << "a window has none";
}

TEST(LimitKeys, RefuseQuotasBeyondTheirAlgorithm) {
  EXPECT_THAT(with_limit("requests: 1000000").codes(), IsEmpty());
  EXPECT_THAT(with_limit("requests: 1000001").codes(), ElementsAre("out_of_range"));
  EXPECT_THAT(with_limit("requests: 1, per: 1d, burst: 30").codes(), IsEmpty());
  EXPECT_THAT(with_limit("requests: 1, per: 1d, burst: 31").codes(), ElementsAre("out_of_range"));
  EXPECT_THAT(with_limit("requests: 1, per: 1d, burst: 1000000000").codes(), ElementsAre("out_of_range"));
  EXPECT_THAT(with_limit("requests: 2000000, algorithm: sliding_window").codes(), IsEmpty());
  EXPECT_THAT(with_limit("requests: 2000001, algorithm: sliding_window").codes(), ElementsAre("out_of_range"));
  EXPECT_THAT(with_limit("requests: 5, algorithm: sliding_window, burst: 5, wait: 1s").codes(),
              ElementsAre("without_effect", "without_effect"));
}

// --- respond

Loaded with_respond(const std::string& keys) {
  return load_text("policies:\n  - {name: q, respond: {" + keys + "}}\n");
}

TEST(RespondKeys, RefuseOriginsThatAreNone) {
  EXPECT_THAT(
      with_respond("cors: {origins: ['https://a.test', 'https://*.a.test:8443', 'null', 'http://[::1]:80']}").codes(),
      IsEmpty());
  EXPECT_THAT(with_respond("cors: {origins: ['*']}").codes(), IsEmpty());
  for (const char* origin :
       {"a.test", "https://", "https://a.test/", "https://a.*", "https://*.", "https://*.*.test", ""}) {
    EXPECT_THAT(with_respond(std::string("cors: {origins: ['") + origin + "']}").codes(), ElementsAre("bad_value"))
        << origin;
  }
  EXPECT_THAT(with_respond("cors: {origins: ['*'], credentials: true}").codes(), ElementsAre("bad_value"));
  EXPECT_THAT(with_respond("cors: {methods: [GET]}").codes(), ElementsAre("missing_key"));
}

TEST(RespondKeys, RefusePagesAndMocksThatCannotBe) {
  EXPECT_THAT(with_respond("error_pages: [{statuses: [404, 502], body: x}, {statuses: [503], body: y}]").codes(),
              IsEmpty());
  EXPECT_THAT(with_respond("error_pages: [{statuses: [404], body: x}, {statuses: [404], body: y}]").codes(),
              ElementsAre("duplicate_name"));
  EXPECT_THAT(with_respond("error_pages: [{statuses: [200], body: x}]").codes(), ElementsAre("out_of_range"));
  EXPECT_THAT(with_respond("mock: {headers: {Content-Length: '5'}}").codes(), ElementsAre("bad_value"));
  EXPECT_THAT(with_respond("mock: {status: 204}, maintenance: {enabled: false}, security: {hsts: 1d}").codes(),
              IsEmpty());
  for (const char* status : {"204", "205", "304"}) {
    EXPECT_THAT(with_respond(std::string("mock: {body: x, status: ") + status + "}").codes(),
                ElementsAre("without_effect"));
  }
  EXPECT_THAT(load_text("policies: [{name: q, respond: {}}]\n").codes(), ElementsAre("missing_key"));
}

}  // namespace tidegate::policies_test
