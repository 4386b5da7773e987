// SPDX-License-Identifier: Apache-2.0
// The policies of identity in a document: what authenticate, authorise and client certificates refuse.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <initializer_list>
#include <string>
#include <vector>

#include "conf/model.h"
#include "conf/validate.h"
#include "conf/warnings.h"
#include "tests/unit/conf/documents.h"
#include "tests/unit/core/made_authority.h"

namespace tidegate::identity_policies_test {

using testing::content;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::load_text;
using testing::Loaded;

Loaded with_auth(const std::string& keys, std::string more = {}) {
  return load_text("policies:\n  - {name: q, authenticate: {" + keys + "}}\n" + more,
                   {{"good.json", content(R"({"keys":[{"kty":"OKP","crv":"Ed25519",)"
                                          R"("x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]})")},
                    {"bad.json", content("{")}});
}

TEST(AuthenticateKeys, RefuseSecretsThatAreNoHashes) {
  const std::string hash(64, 'a');
  const auto keys = [&](const std::string& sha256) {
    return with_auth("api_keys: {keys: [{name: a, sha256: " + sha256 + "}]}");
  };
  EXPECT_THAT(keys(hash).codes(), IsEmpty());
  EXPECT_THAT(keys("open-sesame").codes(), ElementsAre("bad_value"));
  EXPECT_THAT(with_auth("api_keys: {keys: [{name: a, sha256: " + hash + "}, {name: b, sha256: " + hash + "}]}").codes(),
              ElementsAre("duplicate_name"));
  const auto user = [&](const std::string& password) {
    return with_auth("basic: {users: [{name: amy, password: '" + password + "'}]}").codes();
  };
  const std::string sha512(86, 'h');
  EXPECT_THAT(user("$6$salt$" + sha512), IsEmpty());
  EXPECT_THAT(user("$6$rounds=20000$salt$" + sha512), IsEmpty());
  EXPECT_THAT(user("$6$rounds=20001$salt$" + sha512), ElementsAre("bad_value")) << "it would hold a worker up";
  EXPECT_THAT(user("$2y$05$" + std::string(53, 'h')), IsEmpty());
  EXPECT_THAT(user("$2y$12$" + std::string(53, 'h')), ElementsAre("bad_value"));
  EXPECT_THAT(user("secret"), ElementsAre("bad_value"));
  EXPECT_THAT(user("$1$salt$" + sha512), ElementsAre("bad_value"));
  EXPECT_THAT(with_auth("basic: {users: [{name: 'a:b', password: '$6$salt$" + sha512 + "'}]}").codes(),
              ElementsAre("bad_value"));
  EXPECT_THAT(with_auth("realm: x").codes(), ElementsAre("missing_key"));
}

TEST(AuthenticateKeys, ReadTheKeysOfTokens) {
  EXPECT_THAT(with_auth("jwt: {keys_file: good.json, algorithms: [EdDSA]}").codes(), IsEmpty());
  EXPECT_THAT(with_auth("jwt: {keys_file: bad.json, algorithms: [EdDSA]}").codes(), ElementsAre("bad_value"));
  EXPECT_THAT(with_auth("jwt: {keys_file: none.json, algorithms: [EdDSA]}").codes(), ElementsAre("unreadable_file"));
  EXPECT_THAT(with_auth("jwt: {keys_file: good.json, algorithms: [EdDSA, ES256]}").codes(),
              ElementsAre("without_effect"));
  const Loaded none = with_auth("jwt: {keys_file: good.json, algorithms: [none]}");
  ASSERT_THAT(none.codes(), ElementsAre("bad_value"));
  EXPECT_EQ(none.faults[0].hint, "a token without a signature shows nothing");
  EXPECT_EQ(with_auth("jwt: {keys_file: good.json, algorithms: [EdDAS]}").faults[0].hint, "did you mean 'EdDSA'?");
}

TEST(AuthenticateKeys, TakeKeysFromUrlsThatNobodyElseCanSpeakFor) {
  const auto url = [](const std::string& url, const std::string& more = "") {
    return with_auth("jwt: {algorithms: [ES256], keys_url: '" + url + "'" + more + "}").codes();
  };
  for (const char* good : {"https://id.test/jwks.json", "https://id.test:8443/a?b=c", "http://127.0.0.1:8080/keys",
                           "http://localhost/keys", "http://[::1]:80/keys"}) {
    EXPECT_THAT(url(good, ", keys_refresh: 1m"), IsEmpty()) << good;
  }
  for (const char* bad : {"http://id.test/jwks.json", "ftp://id.test/", "id.test/jwks.json", "https://",
                          "https:///keys", "https://a@id.test/", "https://id.test/a b", "http://localhost.evil.test/",
                          "http://127.0.0.1.evil.test/", "file:///etc/passwd"}) {
    EXPECT_THAT(url(bad), ElementsAre("bad_value")) << bad;
  }
  EXPECT_THAT(with_auth("jwt: {algorithms: [ES256]}").codes(), ElementsAre("missing_key"));
  EXPECT_THAT(with_auth("jwt: {algorithms: [EdDSA], keys_file: good.json, keys_refresh: 1m}").codes(),
              ElementsAre("without_effect"));
  EXPECT_THAT(url("https://id.test/", ", keys_refresh: 1s"), ElementsAre("out_of_range"));
}

TEST(SignatureKeys, RefuseWhatSignsNothing) {
  const auto load = [](const std::string& keys) {
    return load_text(
        "policies: [{name: q, authenticate: {signatures: {" + keys + "}}}]\n",
        {{"good.json", content(R"({"keys":[{"kty":"oct","kid":"a","k":")" + std::string(43, 'A') + R"("}]})")},
         {"nameless.json", content(R"({"keys":[{"kty":"oct","k":")" + std::string(43, 'A') + R"("}]})")},
         {"public.json", content(R"({"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a",)"
                                 R"("x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]})")}});
  };
  EXPECT_THAT(load("keys_file: good.json").codes(), IsEmpty());
  EXPECT_THAT(load("keys_file: good.json, covers: ['@method', '@target-uri', content-digest], max_age: 1m").codes(),
              IsEmpty());
  EXPECT_THAT(load("keys_file: good.json, clients: [{name: a, roles: [r]}]").codes(), IsEmpty());
  EXPECT_THAT(load("max_age: 1m").codes(), ElementsAre("missing_key"));
  EXPECT_THAT(load("keys_file: nameless.json").codes(), ElementsAre("bad_value"));
  EXPECT_THAT(load("keys_file: public.json").codes(), ElementsAre("bad_value")) << "anybody can read it";
  EXPECT_THAT(load("keys_file: good.json, clients: [{name: b}]").codes(), ElementsAre("no_such_name"));
  EXPECT_THAT(load("keys_file: good.json, covers: ['@method', Content-Type]").codes(), ElementsAre("bad_value"));
  EXPECT_EQ(load("keys_file: good.json, covers: ['@metod']").faults[0].hint, "did you mean '@method'?");
  EXPECT_THAT(load("keys_file: good.json, remembered: 10").codes(), ElementsAre("out_of_range"));
}

// A cache gives one answer to all clients, so the backend must get nothing from one client there.
TEST(AuthenticateKeys, RefuseWhatACacheWouldGiveToOthers) {
  const std::string keys = "api_keys: {keys: [{name: a, sha256: " + std::string(64, 'a') + "}]}";
  const auto route = [](const std::string& cache) {
    return "pools: [{name: p, backends: [{name: b, addresses: [192.0.2.1], port: 80}]}]\n"
           "routes: [{name: r, pool: p, policies: [q]" +
           cache + "}]\n";
  };
  EXPECT_THAT(with_auth(keys, route(", cache: {}")).codes(), IsEmpty());
  EXPECT_THAT(with_auth(keys + ", identity_header: X-Client", route("")).codes(), IsEmpty());
  EXPECT_THAT(with_auth(keys + ", identity_header: X-Client", route(", cache: {}")).codes(),
              ElementsAre("conflicting_keys"));
  EXPECT_THAT(with_auth(keys + ", keep_credentials: false", route(", cache: {}")).codes(),
              ElementsAre("conflicting_keys"));
}

TEST(ForwardKeys, RefuseWhatCannotBeAskedOrCopied) {
  const std::string pools = "pools: [{name: p, backends: [{name: b, addresses: [192.0.2.1], port: 80}]}]\n";
  const auto forward = [&](const std::string& keys) { return with_auth("forward: {pool: p" + keys + "}", pools); };
  EXPECT_THAT(forward("").codes(), IsEmpty());
  EXPECT_THAT(
      forward(", path: '/verify?a=b', host: 'auth.test:80', to_client: [Location], refusals: [302, 401]").codes(),
      IsEmpty());
  EXPECT_THAT(forward(", cache_ttl: 1m, cache_by: [method, 'header:A', 'cookie:b']").codes(), IsEmpty());
  EXPECT_THAT(with_auth("forward: {}", pools).codes(), ElementsAre("missing_key"));
  EXPECT_THAT(with_auth("forward: {pool: q}", pools).codes(), ElementsAre("no_such_name"));
  for (const char* path : {"verify", "'/a b'", "'/a#b'", "''"}) {
    EXPECT_THAT(forward(std::string(", path: ") + path).codes(), ElementsAre("bad_value")) << path;
  }
  EXPECT_THAT(forward(", host: 'a/b'").codes(), ElementsAre("bad_value"));
  for (const char* field : {"'a b'", "Content-Length", "host", "Transfer-Encoding"}) {
    for (const char* key : {"request_headers", "to_backend", "to_client"}) {
      const Loaded loaded = forward(std::string(", ") + key + ": [X-A, " + field + "]");
      ASSERT_THAT(loaded.codes(), ElementsAre("bad_value")) << key << field;
      EXPECT_EQ(loaded.faults[0].pointer, std::string("/policies/0/authenticate/forward/") + key + "/1");
    }
  }
  EXPECT_THAT(forward(", refusals: [200]").codes(), ElementsAre("out_of_range"));
  EXPECT_THAT(forward(", refusals: [304]").codes(), ElementsAre("bad_value"));
  EXPECT_THAT(forward(", cache_by: [method]").codes(), ElementsAre("without_effect"));
  EXPECT_EQ(forward(", cache_ttl: 1m, cache_by: [mehtod]").faults[0].hint, "did you mean 'method'?");
  EXPECT_THAT(
      with_auth("forward: {pool: p}, api_keys: {keys: [{name: a, sha256: " + std::string(64, 'a') + "}]}", pools)
          .codes(),
      ElementsAre("conflicting_keys"));
  const std::string cached = pools + "routes: [{name: r, pool: p, policies: [q], cache: {}}]\n";
  EXPECT_THAT(with_auth("forward: {pool: p}", cached).codes(), IsEmpty());
  EXPECT_THAT(with_auth("forward: {pool: p, to_backend: [X-A]}", cached).codes(), ElementsAre("conflicting_keys"));
}

// Their pool counts as used.
TEST(ForwardKeys, UseTheirPool) {
  const Loaded loaded = load_text(
      "pools: [{name: p, backends: [{name: b, addresses: [192.0.2.1], port: 80}]}]\n"
      "policies: [{name: q, everywhere: true, authenticate: {forward: {pool: p}}}]\n");
  ASSERT_NE(loaded.model, nullptr) << loaded.rendered();
  EXPECT_THAT(find_warnings(*loaded.document, *loaded.model, 0), IsEmpty());
}

TEST(AuthoriseKeys, RefuseRulesThatNobodyReaches) {
  const auto codes = [](const std::string& keys) {
    return load_text("policies: [{name: q, authorise: {" + keys + "}}]\n").codes();
  };
  EXPECT_THAT(codes("allow: [192.0.2.0/24]"), IsEmpty());
  EXPECT_THAT(codes("rules: [{methods: [GET], roles: [a]}, {roles: [b]}]"), IsEmpty());
  EXPECT_THAT(codes("rules: [{roles: [b]}, {methods: [GET], roles: [a]}]"), ElementsAre("without_effect"));
  EXPECT_THAT(codes(""), ElementsAre("missing_key"));
  const auto places = [](const std::string& keys, const std::string& geo = "geo: {mmdb: /x.mmdb}\n") {
    return load_text("policies: [{name: q, authorise: {places: {" + keys + "}}}]\n" + geo).codes();
  };
  EXPECT_THAT(places("allow_countries: [DE, AT], deny_asns: [64500]"), IsEmpty());
  EXPECT_THAT(places("allow_countries: [DE]", ""), ElementsAre("missing_key")) << "nothing tells where clients are";
  EXPECT_THAT(places("deny_countries: [de]"), ElementsAre("bad_value"));
  EXPECT_THAT(places("deny_countries: [D]"), ElementsAre("bad_value"));
  EXPECT_THAT(places("deny_asns: [0]"), ElementsAre("out_of_range"));
  EXPECT_THAT(places(""), ElementsAre("missing_key"));
  EXPECT_THAT(codes("rules: [{}]"), IsEmpty()) << "everybody who is known";
  EXPECT_THAT(codes("rules: [{claims: [{name: a.b, values: [x]}]}]"), IsEmpty());
  EXPECT_THAT(codes("rules: [{claims: [{name: a}]}]"), ElementsAre("missing_key"));
  EXPECT_THAT(codes("rules: [{claims: [{values: [x]}]}]"), ElementsAre("missing_key"));
}

// --- clients' certificates, and listeners that deny by default

Loaded with_clients(const std::string& keys, const std::string& more = {}) {
  static const MadeAuthority authority("root"), other("other");
  static const TlsIdentity own = make_identity("a", "DNS:a.test");
  return load_text(
      "certificates: [{name: c, certificate_file: crt, key_file: key}]\n"
      "listeners: [{name: l, bind: ['127.0.0.1:443'], tls: {certificates: [c], client_certificates: {" +
          keys + "}}}]\n" + more,
      {{"crt", content(own.certificate_pem)},
       {"key", content(own.key_pem)},
       {"ca", content(authority.pem())},
       {"crl", content(authority.revokes({}))},
       {"ended", content(authority.revokes({}, -60))},
       {"foreign", content(other.revokes({}))},
       {"empty", content("")}});
}

std::vector<std::string> warnings_of(const Loaded& loaded) {
  std::vector<std::string> codes;
  if (loaded.model == nullptr) return {loaded.rendered()};
  for (const Fault& fault : find_warnings(*loaded.document, *loaded.model, ::time(nullptr)))
    codes.push_back(fault.code);
  return codes;
}

TEST(ClientCertificateKeys, RefuseWhatChecksNobody) {
  EXPECT_THAT(with_clients("ca_file: ca").codes(), IsEmpty());
  EXPECT_THAT(with_clients("ca_file: ca, crl_file: crl, optional: true").codes(), IsEmpty());
  EXPECT_THAT(with_clients("crl_file: crl").codes(), ElementsAre("missing_key"));
  for (const char* keys : {"ca_file: key", "ca_file: empty", "ca_file: ca, crl_file: ca",
                           "ca_file: ca, crl_file: empty", "ca_file: ca, crl_file: foreign"}) {
    EXPECT_THAT(with_clients(keys).codes(), ElementsAre("unusable_certificate")) << keys;
  }
  EXPECT_THAT(with_clients("ca_file: ca, crl_file: foreign").faults[0].detail, HasSubstr("CN=root has signed none"));
  EXPECT_THAT(warnings_of(with_clients("ca_file: ca, crl_file: crl")), IsEmpty());
  EXPECT_THAT(warnings_of(with_clients("ca_file: ca, crl_file: ended")), ElementsAre("expired_certificate"));
}

TEST(ClientCertificateKeys, OfAPolicyNameClientsThatCanBe) {
  const auto policy = [](const std::string& keys) {
    return with_clients("ca_file: ca", "policies: [{name: q, everywhere: true, authenticate: {" + keys + "}}]\n");
  };
  EXPECT_THAT(policy("certificates: {}").codes(), IsEmpty());
  EXPECT_THAT(policy("certificates: {clients: [{name: 'spiffe://o/a/*', roles: [r]}, {name: 'spiffe://o/a'}]}").codes(),
              IsEmpty());
  EXPECT_THAT(policy("certificates: {name_from: dsn}").codes(), ElementsAre("no_such_choice"));
  EXPECT_THAT(policy("certificates: {clients: [{name: 'spiffe://*/a'}]}").codes(), ElementsAre("bad_value"));
  EXPECT_THAT(policy("certificates: {clients: [{name: 'spiffe://o/a*'}]}").codes(), ElementsAre("bad_value"));
  EXPECT_THAT(policy("certificates: {clients: [{name: a}, {name: a}]}").codes(), ElementsAre("duplicate_name"));
  EXPECT_THAT(with_auth("certificates: {}").codes(), ElementsAre("without_effect")) << "no listener asks for one";
  const std::string route =
      "pools: [{name: p, backends: [{name: b, addresses: [192.0.2.1], port: 80}]}]\n"
      "routes: [{name: r, pool: p, cache: {}, policies: [q]}]\n";
  EXPECT_THAT(with_clients("ca_file: ca", route + "policies: [{name: q, authenticate: {certificates: {client_cert: "
                                                  "true}}}]\n")
                  .codes(),
              ElementsAre("conflicting_keys"));
}

TEST(DefaultDenyKeys, WarnOfRoutesThatNobodyCanUse) {
  const auto warned = [](const std::string& policies, const std::string& authorise) {
    return warnings_of(
        load_text("listeners: [{name: l, bind: ['127.0.0.1:80'], default_deny: true}]\n"
                  "routes: [{name: r, status: 204" +
                  policies + "}]\npolicies: [{name: q, everywhere: false, authorise: {" + authorise + "}}]\n"));
  };
  const std::string known =
      "}, authenticate: {api_keys: {keys: [{name: u, roles: [r], sha256: " + std::string(64, 'a') + "}]}";
  EXPECT_THAT(warned(", policies: [q]", "rules: [{roles: [r]}]" + known), IsEmpty());
  EXPECT_THAT(warned(", policies: [q]", "allow: [192.0.2.0/24]"), IsEmpty());
  EXPECT_THAT(warned(", policies: [q]", "deny: [192.0.2.0/24]"), ElementsAre("denied_route"));
  EXPECT_THAT(warned("", "rules: [{roles: [r]}]"), ElementsAre("denied_route", "unused"));
}

// Each place that reads who the client is, on a route where nothing finds it out.
TEST(Warnings, NamePoliciesThatReadAClientWhomNothingAuthenticates) {
  const auto warned = [](const std::string& parts,
                         const std::string& routes = "  - {name: r, pool: a, policies: [q]}\n",
                         const std::string& more = "") {
    const auto loaded = load_text(
        "pools: [{name: a, backends: [{name: b, addresses: [192.0.2.1], port: 80}]}]\n"
        "listeners: [{name: l, bind: ['127.0.0.1:80']}]\nroutes:\n" +
        routes + "policies:\n  - {name: q, " + parts + "}\n" + more);
    EXPECT_THAT(loaded.codes(), IsEmpty()) << parts;
    std::vector<std::string> told;
    if (!loaded.model) return told;
    for (const Fault& fault : find_warnings(*loaded.document, *loaded.model, 1'800'000'000)) {
      EXPECT_THAT(fault.hint, HasSubstr("authenticate:")) << fault.code;
      told.push_back(fault.code + " " + fault.pointer);
    }
    return told;
  };
  const std::string keys =
      "authenticate: {api_keys: {keys: [{name: u, roles: [r], sha256: " + std::string(64, 'a') + "}]}}";
  const std::initializer_list<std::array<std::string, 3>> kPlaces = {
      // the part, the pointer behind the policy, and what would make it right
      {"limit: {requests: 5, by: [route, identity]}", "/limit/by/1", "name"},
      {"limit: {requests: 5, by: ['claim:tier']}", "/limit/by/0", "token"},
      {"concurrency: {requests: 5, by: [identity]}", "/concurrency/by/0", "name"},
      {"concurrency: {requests: 5, tenant: identity, lanes: [{name: t, requests: 1}]}", "/concurrency/tenant", "name"},
      {"split: {sticky: [identity], variants: [{name: v, pool: a, weight: 1}]}", "/split/sticky/0", "name"},
      {"split: {variants: [{name: v, pool: a, weight: 1}, {name: w, pool: a, when: 'claim:tier'}]}",
       "/split/variants/1/when", "token"},
      {"transform: {path: {value: '/{identity}{path}'}}", "/transform/path/value", "name"},
      {"transform: {host: '{identity}.test'}", "/transform/host", "name"},
      {"transform: {query: [{set: u, value: '{identity}'}]}", "/transform/query/0/value", "name"},
      {"transform: {request_headers: [{set: X-U, value: '{jwt.sub}'}]}", "/transform/request_headers/0/value", "token"},
      {"transform: {response_headers: [{set: X-U, value: '{identity}'}]}", "/transform/response_headers/0/value",
       "name"},
      {"transform: {request_json: {edits: [{set: u, value: '{identity}'}]}}", "/transform/request_json/edits/0/value",
       "name"},
      {"aggregate: {parts: [{name: x, pool: a, path: '/{identity}'}]}", "/aggregate/parts/0/path", "name"},
      {"aggregate: {parts: [{name: x, pool: a, query: {u: '{jwt.sub}'}}]}", "/aggregate/parts/0/query/u", "token"},
      {"authorise: {rules: [{roles: [r]}]}", "/authorise/rules/0", "name"},
      {"authorise: {rules: [{claims: [{name: tier, values: [gold]}]}]}", "/authorise/rules/0", "token"},
  };
  for (const auto& [part, pointer, needs] : kPlaces) {
    const std::string warning = "unknown_client /policies/0" + pointer;
    EXPECT_THAT(warned(part), ElementsAre(warning)) << part;
    if (needs == "name") {
      EXPECT_THAT(warned(part + ", " + keys), IsEmpty()) << part;
    } else {
      EXPECT_THAT(warned(part + ", " + keys), ElementsAre(warning)) << part << ": nobody reads a token";
    }
  }
  // Bound to many routes: reading a client that is not known has a meaning, and a rule of roles refuses.
  const std::string two = "  - {name: r, pool: a, path: /a}\n  - {name: s, pool: a, path: /b, policies: [k]}\n";
  const std::string knows = "  - {name: k, " + keys + "}\n";
  EXPECT_THAT(warned("everywhere: true, limit: {requests: 5, by: [identity]}", two, knows), IsEmpty());
  EXPECT_THAT(warned("everywhere: true, authorise: {rules: [{roles: [r]}]}", two, knows),
              ElementsAre("unknown_client /policies/0/authorise/rules/0"));
}

}  // namespace tidegate::identity_policies_test
