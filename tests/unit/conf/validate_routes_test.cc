// SPDX-License-Identifier: Apache-2.0
// Rules between keys of routes: one document for each rule.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "conf/limits.h"
#include "conf/model.h"
#include "conf/model/route.h"
#include "tests/unit/conf/documents.h"

namespace tidegate::validate_routes_test {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using testing::load_text;

constexpr const char* kPools = "pools:\n  - {name: app, backends: [{name: a, addresses: [192.0.2.1], port: 80}]}\n";

std::vector<std::string> codes_of_routes(const std::string& routes) {
  return load_text(
             kPools +
             std::string("listeners: [{name: l1, bind: ['0.0.0.0:80']}, {name: l2, bind: ['0.0.0.0:81']}]\nroutes:\n") +
             routes)
      .codes();
}

TEST(Validate, RefusesEachPairOfRoutesThatTie) {
  EXPECT_THAT(codes_of_routes("  - {name: a, path: '/x/{id}', pool: app}\n  - {name: b, path: '/x/{name}', pool: app}\n"
                              "  - {name: c, path: '/x/{id}', methods: [GET], pool: app}\n"),
              ElementsAre("conflicting_routes", "conflicting_routes", "conflicting_routes"));
}

TEST(Validate, TakesRoutesThatAnythingTellsApart) {
  EXPECT_THAT(codes_of_routes("  - {name: a, pool: app}\n"
                              "  - {name: b, path: /x, pool: app}\n"
                              "  - {name: c, path: '/{x}', pool: app}\n"
                              "  - {name: d, hosts: [a.test], pool: app}\n"
                              "  - {name: e, hosts: ['*.test'], pool: app}\n"
                              "  - {name: f, path: /y, methods: [GET], pool: app}\n"
                              "  - {name: g, path: /y, methods: [POST], pool: app}\n"
                              "  - {name: h, path: /z, listeners: [l1], pool: app}\n"
                              "  - {name: i, path: /z, listeners: [l2], pool: app}\n"),
              IsEmpty());
}

// Two routes at one host and path: the priority decides, then the number of conditions. Otherwise no request may match
// both.
TEST(Validate, TakesConditionsThatTellRoutesApartAndRefusesPairsThatTie) {
  const auto pair = [](const std::string& first, const std::string& second) {
    return codes_of_routes("  - {name: a, pool: app, " + first + "}\n  - {name: b, pool: app, " + second + "}\n");
  };
  const char* const kApart[][2] = {
      {"path: /", "path: /, match: {headers: {X-Beta: '1'}}"},
      {"path: /", "path: /, priority: 1"},
      {"path: /, match: {headers: {X-Beta: '1'}}", "path: /, match: {headers: {x-beta: '2'}}"},
      {"path: /, match: {query: {v: '1'}}", "path: /, match: {query: {v: '2'}}"},
      {"path: /, match: {cookies: {g: a}}", "path: /, match: {cookies: {g: b}}"},
      {"path: /, match: {clients: [10.0.0.0/8]}", "path: /, match: {clients: [192.0.2.0/24]}"},
      {"path: /, match: {headers: {A: x}}", "path: /, match: {headers: {B: x}}, priority: 1"},
      {"path: /, match: {headers: {A: x}}", "path: /, match: {headers: {A: x, B: x}}"},
      {"path: /*", "path: /*, match: {path_regex: '/v[0-9]+/.*'}"},
      {"path: /*, match: {path_regex: '/api/v[0-9]+'}", "path: /*, match: {path_regex: '/web/.*'}"},
      {"path: /, match: {headers_regex: {A: '[a-f]+'}}", "path: /, match: {headers_regex: {a: '[g-z].*'}}"},
      {"path: /, match: {headers_regex: {A: '[0-9]+'}}", "path: /, match: {headers: {A: x}}"},
      {"path: /, match: {query: {v: '7'}}", "path: /, match: {query_regex: {v: '[1-6]'}}"},
      {"path: /*, match: {path_regex: '/a.*'}", "path: /*, match: {path_regex: '.*b'}, priority: 1"},
  };
  for (const auto& [first, second] : kApart) EXPECT_THAT(pair(first, second), IsEmpty()) << first << " | " << second;
  const char* const kTies[][2] = {
      {"path: /, match: {headers: {A: x}}", "path: /, match: {headers: {B: x}}"},
      {"path: /, match: {headers: {A: x}}", "path: /, match: {headers: {A: '*'}}"},
      {"path: /, match: {query: {v: '1'}}", "path: /, match: {query: {V: '2'}}"},
      {"path: /, match: {cookies: {g: a}}", "path: /, match: {headers: {g: b}}"},
      {"path: /, match: {clients: [10.0.0.0/8]}", "path: /, match: {clients: [192.0.2.0/24, 10.1.0.0/16]}"},
      {"path: /, priority: 1", "path: /, priority: 1"},
      {"path: /*, match: {path_regex: '/a.*'}", "path: /*, match: {path_regex: '.*b'}"},
      {"path: /*, match: {path_regex: '/a.*'}", "path: /*, match: {headers: {A: x}}"},
      {"path: /, match: {headers_regex: {A: '[0-9]+'}}", "path: /, match: {headers: {A: '7'}}"},
      {"path: /, match: {headers_regex: {A: '[0-9]+'}}", "path: /, match: {headers: {A: '*'}}"},
      {"path: /, match: {query_regex: {v: 'a+'}}", "path: /, match: {query_regex: {V: 'b+'}}"},
  };
  for (const auto& [first, second] : kTies) {
    EXPECT_THAT(pair(first, second), ElementsAre("conflicting_routes")) << first << " | " << second;
  }
}

TEST(Validate, RefusesConditionsThatACacheWouldForget) {
  const auto one = [](const std::string& keys) { return codes_of_routes("  - {name: a, pool: app, " + keys + "}\n"); };
  EXPECT_THAT(one("match: {query: {v: '1'}}, cache: {}"), IsEmpty());
  EXPECT_THAT(one("match: {query: {v: '1'}}, cache: {key_query: [v, w]}"), IsEmpty());
  EXPECT_THAT(one("match: {query: {v: '1'}}, cache: {key_query: [w]}"), ElementsAre("conflicting_keys"));
  EXPECT_THAT(one("match: {query: {v: '1'}}, cache: {ignore_query: true}"), ElementsAre("conflicting_keys"));
  EXPECT_THAT(one("match: {headers: {A: x}}, cache: {}"), ElementsAre("conflicting_keys"));
  EXPECT_THAT(one("match: {cookies: {A: x}}, cache: {}"), ElementsAre("conflicting_keys"));
  EXPECT_THAT(one("match: {clients: [10.0.0.0/8]}, cache: {}"), ElementsAre("conflicting_keys"));
  EXPECT_THAT(one("match: {headers: {Host: a.test}}"), ElementsAre("bad_value"));
  EXPECT_THAT(one("match: {headers: {A: ''}}"), ElementsAre("bad_value"));
  EXPECT_THAT(one("match: {headers: {A: x, a: x}}"), ElementsAre("duplicate_name"));
  EXPECT_THAT(one("match: {headers: {'a b': x}}"), ElementsAre("bad_value"));
  EXPECT_THAT(one("priority: 1000001"), ElementsAre("out_of_range"));
  EXPECT_THAT(one("match: {path_regex: '/v[0-9]+', query_regex: {v: '[0-9]+'}}, cache: {key_query: [v]}"), IsEmpty());
  EXPECT_THAT(one("match: {query_regex: {v: '[0-9]+'}}, cache: {key_query: [w]}"), ElementsAre("conflicting_keys"));
  EXPECT_THAT(one("match: {headers_regex: {A: x}}, cache: {}"), ElementsAre("conflicting_keys"));
}

TEST(Validate, RefusesRegularExpressionsThatRe2DoesNotTakeOrThatSayNothing) {
  const auto one = [](const std::string& keys) { return codes_of_routes("  - {name: a, pool: app, " + keys + "}\n"); };
  EXPECT_THAT(one("path: '/a/{x}', match: {path_regex: '/a/[0-9]+'}"), IsEmpty());
  for (const char* bad : {"(", "(?=a)", "(a)\\1", "((((((((((a))))))))))"}) {
    const std::string pattern = std::string("'") + bad + "'";
    EXPECT_THAT(one("match: {path_regex: " + pattern + "}"), ElementsAre("bad_value")) << bad;
    EXPECT_THAT(one("match: {headers_regex: {A: " + pattern + "}}"), ElementsAre("bad_value")) << bad;
    EXPECT_THAT(one("match: {query_regex: {a: " + pattern + "}}"), ElementsAre("bad_value")) << bad;
  }
  EXPECT_THAT(one("match: {headers_regex: {A: ''}}"), ElementsAre("bad_value"));
  EXPECT_THAT(one("match: {headers_regex: {A: '*'}}"), ElementsAre("bad_value"));
  EXPECT_THAT(one("match: {headers_regex: {Host: 'a.*'}}"), ElementsAre("bad_value"));
  EXPECT_THAT(one("match: {headers_regex: {A: x, a: x}}"), ElementsAre("duplicate_name"));
  EXPECT_THAT(one("path: /a, match: {path_regex: '/b'}"), ElementsAre("without_effect"));
  EXPECT_THAT(one("path: /a, match: {path_regex: '/a'}"), ElementsAre("without_effect"));
}

TEST(Validate, BoundsHowManyExpressionsOneRequestTries) {
  std::string routes;
  const auto add = [&routes](int i) {
    routes += "  - {name: r" + std::to_string(i) + ", pool: app, match: {path_regex: '/r" + std::to_string(i) +
              "/.*'}, priority: " + std::to_string(i) + "}\n";
  };
  for (int i = 0; i < 256; ++i) add(i);
  EXPECT_THAT(codes_of_routes(routes), IsEmpty());
  for (int i = 256; i < 260; ++i) add(i);
  EXPECT_THAT(codes_of_routes(routes), ElementsAre("out_of_range")) << "told once";
}

TEST(Validate, CountsRoutesThatShareSeveralHostsAsOnePair) {
  EXPECT_THAT(
      codes_of_routes(
          "  - {name: a, hosts: [a.test, b.test], pool: app}\n  - {name: b, hosts: [b.test, A.test], pool: app}\n"),
      ElementsAre("conflicting_routes"));
}

TEST(Validate, WantsExactlyOneAnswerOfARoute) {
  EXPECT_THAT(codes_of_routes("  - {name: a}\n"), ElementsAre("exactly_one"));
  EXPECT_THAT(codes_of_routes("  - {name: a, pool: app, status: 404}\n"), ElementsAre("exactly_one"));
  EXPECT_THAT(codes_of_routes("  - {name: a, redirect: /x, body: moved}\n"), ElementsAre("exactly_one"));
  EXPECT_THAT(codes_of_routes("  - {name: a, redirect: /x, status: 404}\n"), ElementsAre("out_of_range"));
  EXPECT_THAT(codes_of_routes("  - {name: a, path: '/{id}', redirect: '/y/{id}{path}', status: 301}\n"), IsEmpty());
  EXPECT_THAT(codes_of_routes("  - {name: a, path: '/{id}', redirect: '/y/{di}'}\n"), ElementsAre("no_such_name"));
  EXPECT_THAT(codes_of_routes("  - {name: a, path: '/v1/*', redirect: '/v2{rest}'}\n"), IsEmpty());
  EXPECT_THAT(codes_of_routes("  - {name: a, path: /v1, redirect: '/v2{rest}'}\n"), ElementsAre("no_such_name"));
  for (const char* open : {"//{id}", "https://{id}/x", "https:{path}", "https:/{id}", "https://{rest}",
                           "http://{id}{path}", "https://{host}{id}", "https://{id}:443/"}) {
    EXPECT_THAT(codes_of_routes(std::string("  - {name: a, path: '/{id}/*', redirect: '") + open + "'}\n"),
                ElementsAre("bad_value"))
        << open;
  }
  for (const char* fine : {"//a.test/{id}", "https://{id}.a.test/", "https://{host}{path}", "http://{authority}/{id}",
                           "https://a.test:8443{rest}", "/{rest}", "{path}", "app:{id}"}) {
    EXPECT_THAT(codes_of_routes(std::string("  - {name: a, path: '/{id}/*', redirect: '") + fine + "'}\n"), IsEmpty())
        << fine;
  }
  EXPECT_THAT(codes_of_routes("  - {name: a, pool: app, try_timeout: 2s, retry_statuses: [502, 503]}\n"), IsEmpty());
  EXPECT_THAT(codes_of_routes("  - {name: a, pool: app, retry_statuses: [302]}\n"), ElementsAre("out_of_range"));
}

TEST(Validate, TakesRedirectsOfEveryKindAndWhatTheyReplace) {
  for (const char* status : {"301", "302", "303", "307", "308"}) {
    EXPECT_THAT(codes_of_routes("  - {name: a, path: '/{id}', redirect: 'http://{authority}/{id}{query}', status: " +
                                std::string(status) + "}\n"),
                IsEmpty());
  }
  EXPECT_THAT(codes_of_routes("  - {name: a, redirect: /x, status: 304}\n"), ElementsAre("out_of_range"));
}

TEST(Validate, RefusesEditsOfFramingOfTheConnectionAndOfOneFieldTwice) {
  const auto faults_of = [](const std::string& edits) {
    return codes_of_routes("  - {name: a, pool: app, " + edits + "}\n");
  };
  for (const char* name : {"Content-Length", "content-length", "Transfer-Encoding", "Connection", "Keep-Alive", "TE",
                           "Trailer", "Upgrade", "Proxy-Connection", "HTTP2-Settings", "Expect"}) {
    for (const char* key : {"request_headers", "response_headers"}) {
      EXPECT_THAT(faults_of(std::string(key) + ": {" + name + ": '2'}"), ElementsAre("bad_value")) << key << name;
      EXPECT_THAT(faults_of(std::string(key) + ": {" + name + ": ''}"), ElementsAre("bad_value")) << key << name;
    }
  }
  EXPECT_THAT(faults_of("request_headers: {Host: ''}"), ElementsAre("bad_value"));
  EXPECT_THAT(faults_of("response_headers: {Host: a}"), ElementsAre("bad_value"));
  EXPECT_THAT(faults_of("request_headers: {X-A: '1', x-a: '2'}"), ElementsAre("duplicate_name"));
  EXPECT_THAT(faults_of("request_headers: {Host: inner.test, Via: '', X-Forwarded-For: '', Date: x}"), IsEmpty());
  EXPECT_THAT(codes_of_routes("  - {name: a, status: 426, response_headers: {Upgrade: TLS/1.3}}\n"), IsEmpty());
  const auto loaded = load_text(std::string(kPools) + "routes:\n  - {name: a, pool: app, request_headers: {TE: x}}\n");
  ASSERT_THAT(loaded.codes(), ElementsAre("bad_value"));
  EXPECT_EQ(loaded.faults[0].pointer, "/routes/0/request_headers/TE");
}

TEST(Validate, GivesARedirectWithoutStatusItsDefault) {
  const auto loaded = load_text("routes: [{name: a, redirect: /x}]\n");
  ASSERT_NE(loaded.model, nullptr) << loaded.rendered();
  EXPECT_EQ(loaded.model->routes[0].redirect()->status, 302);
}

TEST(Validate, RefusesRoutesThatMergedSlashesNeverReach) {
  const std::string merging = "  - {name: m, bind: ['0.0.0.0:80']}\n";
  const std::string keeping = "  - {name: k, bind: ['0.0.0.0:81'], merge_slashes: false}\n";
  const auto codes = [](const std::string& listeners, const std::string& route) {
    return load_text("listeners:\n" + listeners + "routes:\n  - {name: r, status: 403, " + route + "}\n").codes();
  };
  EXPECT_THAT(codes(merging, "path: /a//b"), ElementsAre("without_effect"));
  EXPECT_THAT(codes(merging, "path: '//*'"), ElementsAre("without_effect"));
  EXPECT_THAT(codes(merging + keeping, "path: /a//b, listeners: [m]"), ElementsAre("without_effect"));
  EXPECT_THAT(codes(merging + keeping, "path: /a//b, listeners: [k]"), IsEmpty());
  EXPECT_THAT(codes(merging + keeping, "path: /a//b"), IsEmpty());
  EXPECT_THAT(codes(merging, "path: /a/b/"), IsEmpty());
}

// CGI and WSGI read a field's name without regard to its punctuation.
TEST(Validate, RefusesEditsThatFrameAMessageInAnySpelling) {
  const auto codes = [](const std::string& key, const std::string& field, const std::string& value) {
    return load_text(std::string(kPools) + "routes: [{name: r, pool: app, " + key + ": {'" + field + "': '" + value +
                     "'}}]\n")
        .codes();
  };
  for (const char* key : {"request_headers", "response_headers"}) {
    for (const char* field :
         {"content-length", "Content_Length", "content.length", "Transfer_Encoding", "connection"}) {
      EXPECT_THAT(codes(key, field, "2"), ElementsAre("bad_value")) << key << " " << field;
    }
    EXPECT_THAT(codes(key, "x_content_length", "2"), IsEmpty());
  }
  for (const char* host : {"a b", "[zz]", "a:99999", "u@a.test"}) {
    EXPECT_THAT(codes("request_headers", "Host", host), ElementsAre("bad_value")) << host;
  }
  for (const char* host : {"a.test", "a.test:8080", "192.0.2.1", "[2001:db8::1]:80"}) {
    EXPECT_THAT(codes("request_headers", "Host", host), IsEmpty()) << host;
  }
}

}  // namespace tidegate::validate_routes_test
