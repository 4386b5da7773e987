// SPDX-License-Identifier: Apache-2.0
// Rules between keys: one document for each rule, and the fault for it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "conf/limits.h"
#include "conf/model.h"
#include "conf/model/certificate.h"
#include "tests/unit/conf/documents.h"
#include "tests/unit/core/made_authority.h"

namespace tidegate::validate_test {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using testing::load_text;

constexpr const char* kPools = "pools:\n  - {name: app, backends: [{name: a, addresses: [192.0.2.1], port: 80}]}\n";

TEST(Validate, RefusesListenersThatMeet) {
  const std::string first =
      "sites: [{name: eu}, {name: us}]\nlisteners:\n  - {name: a, bind: ['0.0.0.0:80'], site: eu}\n";
  EXPECT_THAT(load_text(first + "  - {name: b, bind: ['0.0.0.0:80'], site: us}\n").codes(), IsEmpty());
  EXPECT_THAT(load_text(first + "  - {name: b, bind: ['0.0.0.0:80']}\n").codes(), ElementsAre("colliding_listeners"));
}

TEST(Validate, WantsPortsWhereSomethingConnects) {
  const std::string pool = "pools: [{name: app, probe: p, backends: [{name: a, addresses: [192.0.2.1]}]}]\n";
  EXPECT_THAT(load_text(pool + "probes: [{name: p, port: 80}]\n").codes(), IsEmpty());
  EXPECT_THAT(load_text(pool + "probes: [{name: p}]\n").codes(), ElementsAre("missing_port"));
  EXPECT_THAT(load_text(pool + "probes: [{name: p, port: 80}]\nroutes: [{name: r, pool: app}]\n").codes(),
              ElementsAre("missing_port"));
}

class ValidateDns : public ::testing::Test {
 protected:
  std::vector<std::string> codes(const std::string& steers, const std::string& more = "") {
    return load_text(std::string("sites: [{name: eu, location: {latitude: 50, longitude: 8}}, {name: nowhere}]\n"
                                 "vips: [{name: v1, site: eu, addresses: [192.0.2.1]}, {name: v2, site: eu, addresses: "
                                 "[192.0.2.2]},\n"
                                 "       {name: v3, site: nowhere, addresses: [192.0.2.3]}]\n"
                                 "zones: [{name: example.test, file: z}]\n") +
                         kPools + more + "steers:\n" + steers,
                     {{"z", testing::content("@ IN SOA a b 1 2 3 4 5\n")}})
        .codes();
  }
};

TEST_F(ValidateDns, WantsSteersInsideZones) {
  EXPECT_THAT(
      codes("  - {name: www.example.test, targets: [{vip: v1}]}\n  - {name: example.test, targets: [{vip: v1}]}\n"),
      IsEmpty());
  EXPECT_THAT(codes("  - {name: www.badexample.test, targets: [{vip: v1}]}\n"), ElementsAre("outside_zones"));
}

// RFC 2317, RFC 4592 §2.1.1.
TEST(Validate, TakesTheNamesOfZonesThatOthersServe) {
  const auto codes = [](const std::string& name) {
    return load_text("zones: [{name: \"" + name + "\", file: z}]\n",
                     {{"z", testing::content("@ IN SOA a b 1 2 3 4 5\n")}})
        .codes();
  };
  EXPECT_THAT(codes("0/25.2.0.192.in-addr.arpa"), IsEmpty());
  EXPECT_THAT(codes("a.*.example.test"), IsEmpty());
  EXPECT_THAT(codes("a b.example.test"), ElementsAre("bad_value"));
  EXPECT_THAT(codes("a..example.test"), ElementsAre("bad_value"));
}

TEST_F(ValidateDns, WantsTargetsThatAreOneThingOnce) {
  EXPECT_THAT(codes("  - {name: a.example.test, targets: []}\n"), ElementsAre("empty_value"));
  EXPECT_THAT(codes("  - {name: a.example.test, targets: [{weight: 1}]}\n"), ElementsAre("exactly_one"));
  EXPECT_THAT(codes("  - {name: a.example.test, targets: [{vip: v1, pool: app}]}\n"), ElementsAre("exactly_one"));
  EXPECT_THAT(codes("  - {name: a.example.test, targets: [{vip: v1}, {vip: v2}, {vip: v1}]}\n"),
              ElementsAre("duplicate_name"));
}

TEST_F(ValidateDns, WantsPlacesWhereDistancesCount) {
  EXPECT_THAT(codes("  - {name: a.example.test, targets: [{vip: v1}, {vip: v3}]}\n"), ElementsAre("missing_place"));
  EXPECT_THAT(codes("  - {name: a.example.test, policy: failover, targets: [{vip: v1}, {vip: v3}]}\n"), IsEmpty());
}

TEST_F(ValidateDns, WantsAWeightAboveZeroWhereWeightsDecide) {
  const std::string zeros = "targets: [{vip: v1, weight: 0}, {vip: v3, weight: 0}]}\n";
  EXPECT_THAT(codes("  - {name: a.example.test, policy: weighted, " + zeros), ElementsAre("without_effect"));
  EXPECT_THAT(codes("  - {name: a.example.test, policy: failover, " + zeros), IsEmpty());
  EXPECT_THAT(
      codes("  - {name: a.example.test, policy: weighted, targets: [{vip: v1, weight: 0}, {vip: v3, weight: 1}]}\n"),
      IsEmpty());
}

TEST(Validate, RefusesNetworksWhoseAddressesCarryAnother) {
  const auto faults = [](const std::string& network) {
    return load_text("sites: [{name: eu}]\ngeo: {networks: [{network: \"" + network + "\", site: eu}]}\n").codes();
  };
  EXPECT_THAT(faults("2002:c000:200::/40"), ElementsAre("without_effect"));
  EXPECT_THAT(faults("2002::/16"), ElementsAre("without_effect"));
  EXPECT_THAT(faults("::ffff:192.0.2.0/120"), ElementsAre("without_effect"));
  EXPECT_THAT(faults("2000::/3"), IsEmpty());
  EXPECT_THAT(faults("2001:db8::/32"), IsEmpty());
}

TEST(Validate, RefusesNetworksThatStandTwiceOrSayTwoPlaces) {
  EXPECT_THAT(load_text("sites: [{name: eu}]\ngeo:\n  networks:\n    - {network: 10.0.0.0/8, site: eu}\n    - "
                        "{network: 10.0.0.0/8, site: eu}\n")
                  .codes(),
              ElementsAre("duplicate_name"));
  EXPECT_THAT(load_text("geo: {networks: [{network: 10.0.0.0/8}]}\n").codes(), ElementsAre("exactly_one"));
  EXPECT_THAT(load_text("geo: {networks: [{network: 10.0.0.1/8}]}\n").faults.at(0).hint,
              "bits behind the prefix are set; the network is 10.0.0.0/8");
}

TEST(Validate, WantsAKeyOfSixteenBytes) {
  const auto codes = [](const std::string& key) {
    return load_text("httpdns: {accounts: [{id: '1', secret: a, aes_key: '" + key + "'}]}\n").codes();
  };
  EXPECT_THAT(codes("000102030405060708090a0b0c0d0e0f"), IsEmpty());
  EXPECT_THAT(codes("000102030405060708090a0b0c0d0e"), ElementsAre("bad_value"));
  EXPECT_THAT(codes("zz0102030405060708090a0b0c0d0e0f"), ElementsAre("bad_value"));
}

TEST(Validate, WantsADesKeyOfEightBytesAndATokenOfOneAccount) {
  const auto codes = [](const std::string& keys) {
    return load_text(
               "httpdns: {accounts: [{id: '1', secret: a, tokens: [first-one, second-one]}, {id: '2', secret: b, " +
               keys + "}]}\n")
        .codes();
  };
  EXPECT_THAT(codes("des_key: eightkey, tokens: [third-one]"), IsEmpty());
  EXPECT_THAT(codes("des_key: seven77"), ElementsAre("bad_value"));
  EXPECT_THAT(codes("tokens: [third-one, second-one]"), ElementsAre("duplicate_name"));
  EXPECT_THAT(codes("tokens: ['']"), ElementsAre("empty_value"));
}

TEST(Validate, WantsATlsListenerForAnHttpsRecord) {
  const std::string steer =
      "sites: [{name: a, location: {latitude: 1, longitude: 1}}]\nvips: [{name: v, site: a, addresses: [192.0.2.1]}]\n"
      "zones: [{name: t., file: t.zone}]\nsteers: [{name: www.t., https_record: true, targets: [{vip: v}]}]\n";
  EXPECT_THAT(load_text(steer).codes(), ::testing::Contains("without_effect"));
}

TEST(Validate, RefusesAccountsThatStandTwice) {
  EXPECT_THAT(load_text("httpdns: {accounts: [{id: '1', secret: a}, {id: 1, secret: b}]}\n").codes(),
              ElementsAre("duplicate_name"));
}

std::string example(const std::string& name) {
  std::ifstream stream(std::string(TIDEGATE_SOURCE_DIR) + "/conf/examples/" + name, std::ios::binary);
  std::ostringstream content;
  content << stream.rdbuf();
  return content.str();
}

TEST(Validate, RefusesOrdersThatNoAuthorityCouldServe) {
  const std::string authority = "acme: {directory: 'https://ca.test/dir', terms_agreed: true}\n";
  const auto order = [](const std::string& keys) { return "certificates: [{name: c, " + keys + "}]\n"; };
  EXPECT_THAT(load_text(authority + order("acme: {names: [a.test, b.test]}")).codes(), IsEmpty());
  EXPECT_THAT(load_text(order("acme: {names: [a.test]}")).codes(), ElementsAre("missing_section"));
  EXPECT_THAT(load_text("acme: {directory: 'https://ca.test/dir'}\n" + order("acme: {names: [a.test]}")).codes(),
              ElementsAre("terms_not_agreed"));
  EXPECT_THAT(load_text("acme: {directory: 'http://ca.test/dir', contact: [ops]}\n").codes(),
              ElementsAre("invalid_url", "invalid_url"));
  EXPECT_THAT(load_text("acme: {directory: 'https://ca.test/dir', eab_key_id: me}\n").codes(),
              ElementsAre("missing_key"));
  EXPECT_THAT(load_text(authority + order("acme: {names: ['*.a.test']}")).codes(), ElementsAre("wildcard_needs_dns"));
  EXPECT_THAT(load_text(authority + order("acme: {names: [localhost]}")).codes(), ElementsAre("invalid_name"));
  EXPECT_THAT(load_text(authority + order("acme: {names: []}")).codes(), ElementsAre("empty_value"));
  std::string many = "'n0.test'";
  for (int i = 1; i <= 100; ++i) many += ", 'n" + std::to_string(i) + ".test'";
  EXPECT_THAT(load_text(authority + order("acme: {names: [" + many + "]}")).codes(), ElementsAre("too_many"));
  const std::string zone = "zones: [{name: a.test, file: zone}]\n";
  const auto file = testing::content("@ SOA ns hostmaster 1 1 1 1 1\n@ NS ns\n");
  const std::string by_dns = authority + zone + "certificates: [{name: c, acme: {challenge: dns-01, names: ";
  EXPECT_THAT(load_text(by_dns + "[a.test, '*.a.test', b.a.test]}}]\n", {{"zone", file}}).codes(), IsEmpty());
  EXPECT_THAT(load_text(by_dns + "[ba.test]}}]\n", {{"zone", file}}).codes(), ElementsAre("outside_zones"));
  const auto key = testing::content(example("example.test.key"));
  EXPECT_THAT(load_text(order("key_file: key"), {{"key", key}}).codes(), ElementsAre("missing_key"));
  EXPECT_THAT(load_text(authority + order("acme: {names: [a.test]}, key_file: key"), {{"key", key}}).codes(),
              ElementsAre("contradiction"));
}

TEST(Validate, RefusesOcspRespondersThatNobodyCanAsk) {
  const auto with = [](const std::string& keys) {
    return load_text("certificates: [{name: c, certificate_file: crt, key_file: key, ocsp: " + keys + "}]\n",
                     {{"crt", testing::content(example("example.test.crt"))},
                      {"key", testing::content(example("example.test.key"))}});
  };
  const auto loaded = with("{responder: 'http://ocsp.test/ask'}");
  EXPECT_THAT(loaded.codes(), IsEmpty());
  EXPECT_TRUE(loaded.model->certificates[0].ocsp.enabled);
  EXPECT_THAT(with("{}").codes(), IsEmpty());
  EXPECT_FALSE(with("{enabled: false}").model->certificates[0].ocsp.enabled);
  for (const char* url : {"ldap://ocsp.test", "'http://'", "'http:///ask'", "ocsp.test", "'http://ocsp.test/a b'"}) {
    EXPECT_THAT(with(std::string("{responder: ") + url + "}").codes(), ElementsAre("invalid_url")) << url;
  }
  EXPECT_THAT(with("{responder: 'http://" + std::string(400, 'x') + "'}").codes(), ElementsAre("out_of_range"));
  std::string many = "acme: {directory: 'https://ca.test/dir', terms_agreed: true}\ncertificates:\n";
  const std::string pair = ", certificate_file: crt, key_file: key, ocsp: {}}\n";
  for (size_t i = 0; i <= kMaxStapledCertificates; ++i) many += "  - {name: c" + std::to_string(i) + pair;
  EXPECT_THAT(load_text(many, {{"crt", testing::content(example("example.test.crt"))},
                               {"key", testing::content(example("example.test.key"))}})
                  .codes(),
              ElementsAre("too_many"));
}

TEST(Validate, RefusesCertificatesThatCannotServe) {
  const std::string text = "certificates: [{name: c, certificate_file: crt, key_file: key}]\n";
  const auto certificate = testing::content(example("example.test.crt")),
             key = testing::content(example("example.test.key"));
  EXPECT_THAT(load_text(text, {{"crt", certificate}, {"key", key}}).codes(), IsEmpty());
  EXPECT_THAT(load_text(text, {{"crt", certificate}, {"key", certificate}}).codes(),
              ElementsAre("unusable_certificate"));
  EXPECT_THAT(load_text(text, {{"crt", testing::content("nonsense")}, {"key", key}}).codes(),
              ElementsAre("unusable_certificate"));
}

TEST(Validate, RefusesAuthoritiesThatCheckNothingOrCannotBeRead) {
  const auto codes = [](const std::string& pool_keys, const std::string& probe_keys) {
    return load_text("pools:\n  - {name: app, backends: [{name: a, addresses: [192.0.2.1], port: 80}]" + pool_keys +
                         "}\nprobes:\n  - {name: alive" + probe_keys + "}\n",
                     {{"ca", testing::content(example("example.test.crt"))},
                      {"bad", testing::content("nonsense")},
                      {"empty", testing::content("")}})
        .codes();
  };
  EXPECT_THAT(
      codes(", tls: true, tls_verify: true, tls_ca_file: ca", ", type: https, tls_verify: true, tls_ca_file: ca"),
      IsEmpty());
  EXPECT_THAT(codes(", tls: true, tls_verify: true", ", type: https, tls_verify: true"), IsEmpty());
  EXPECT_THAT(codes(", tls: true, tls_ca_file: ca", ", type: https, tls_ca_file: ca"), IsEmpty());
  EXPECT_THAT(codes(", tls: true, tls_verify: false", ", type: https, tls_verify: false"), IsEmpty());
  EXPECT_THAT(codes("", ""), IsEmpty()) << "what is checked by default is no fault without TLS";
  EXPECT_THAT(
      codes(", tls: true, tls_verify: false, tls_ca_file: ca", ", type: https, tls_verify: false, tls_ca_file: ca"),
      ElementsAre("without_effect", "without_effect"));
  EXPECT_THAT(codes(", tls_ca_file: ca", ", type: http, tls_ca_file: ca"),
              ElementsAre("without_effect", "without_effect"));
  EXPECT_THAT(codes(", tls_verify: true", ", type: http, tls_verify: true"),
              ElementsAre("without_effect", "without_effect"));
  EXPECT_THAT(
      codes(", tls: true, tls_verify: true, tls_ca_file: bad", ", type: https, tls_verify: true, tls_ca_file: empty"),
      ElementsAre("unusable_certificate", "unusable_certificate"));
}

TEST(Validate, RefusesProtectionThatWouldDoNothing) {
  const auto codes = [](const std::string& keys, const std::string& backend_keys = "") {
    return load_text(
               "sites: [{name: s, location: {latitude: 1, longitude: 1}}]\npools:\n  - {name: app, backends: "
               "[{name: a, addresses: [192.0.2.1], port: 80" +
               backend_keys + "}]" + keys + "}\n")
        .codes();
  };
  EXPECT_THAT(codes(", breaker: {error_rate: 0}"), ElementsAre("without_effect"));
  EXPECT_THAT(codes(", breaker: {error_rate: 0, slow: 1s, slow_rate: 0}"), ElementsAre("without_effect"));
  EXPECT_THAT(codes(", breaker: {slow_rate: 0.5}"), ElementsAre("without_effect"));
  EXPECT_THAT(codes(", prefer_site: true"), ElementsAre("without_effect"));
  EXPECT_THAT(codes(", sticky: {name: x}"), ElementsAre("without_effect"));
  EXPECT_THAT(codes(", sticky: {by: cookie, name: 'a=b'}"), ::testing::SizeIs(1));
  EXPECT_THAT(codes(", sticky: {by: header, name: X-Lane, ttl: 1h}"), IsEmpty());
  EXPECT_THAT(codes("", ", backup: true"), ElementsAre("without_effect"));
  EXPECT_THAT(codes(", breaker: {trials: 0}"), ElementsAre("out_of_range"));
  EXPECT_THAT(codes(", panic_threshold: 1.1"), ElementsAre("out_of_range"));
  for (const char* sound : {", breaker: {}", ", breaker: {error_rate: 0, consecutive_failures: 5}",
                            ", breaker: {scope: pool, slow: 1s, slow_rate: 0.2}", ", breaker: {enabled: false}",
                            ", slow_start: 30s, panic_threshold: 0.5, eject_max_share: 0.3, count_5xx: true"}) {
    EXPECT_THAT(codes(sound), IsEmpty()) << sound;
  }
  EXPECT_THAT(codes(", prefer_site: true", ", site: s"), IsEmpty());
}

TEST(Validate, RefusesBackendsThatAreNowhereOrInSeveralPlaces) {
  const auto codes = [](const std::string& where, const std::string& keys = "", const std::string& more = "") {
    return load_text("pools:\n  - {name: app, backends: [{name: a" + where + "}]" + keys + "}\n" + more).codes();
  };
  EXPECT_THAT(codes(""), ElementsAre("exactly_one"));
  EXPECT_THAT(codes(", host: app.internal, socket: /run/app"), ElementsAre("exactly_one"));
  EXPECT_THAT(codes(", socket: run/app"), ElementsAre("bad_value"));
  EXPECT_THAT(codes(", socket: /run/app, port: 80"), ElementsAre("without_effect"));
  EXPECT_THAT(codes(", srv: _http._tcp.app.internal, port: 80"), ElementsAre("without_effect"));
  EXPECT_THAT(codes(", addresses: [192.0.2.1]", ", lookup_min: 1s"), ElementsAre("without_effect"));
  EXPECT_THAT(codes(", host: app.internal, port: 80", ", lookup_min: 1m, lookup_max: 1s"), ElementsAre("out_of_range"));
  EXPECT_THAT(codes(", socket: /run/app", ", probe: p", "probes: [{name: p, port: 80}]\n"), ElementsAre("no_address"));
  EXPECT_THAT(codes(", host: app.internal, port: 80", ", probe: p", "probes: [{name: p}]\n"), IsEmpty());
  EXPECT_THAT(codes(", srv: _http._tcp.app.internal", ", probe: p", "probes: [{name: p}]\n"), IsEmpty());
  EXPECT_THAT(codes(", host: app.internal", ", probe: p", "probes: [{name: p}]\n"), ElementsAre("missing_port"));
  EXPECT_THAT(codes(", socket: /run/app", "",
                    "vips: [{name: v, addresses: [192.0.2.9]}]\nservices: [{name: s, vip: v, port: 80, pool: app}]\n"),
              ::testing::Contains("no_address"));
  for (const char* sound : {", host: app.internal, port: 80", ", srv: _http._tcp.app.internal", ", socket: /run/app"}) {
    EXPECT_THAT(codes(sound), IsEmpty()) << sound;
  }
}

// Only the proxy can use a unix socket. Every other user of such a pool gets a fault at its own key.
TEST(Validate, RefusesEachUserOfABackendWithoutAnAddressAtItsKey) {
  const auto told = [](const char* where) {
    const testing::Loaded loaded = load_text(
        std::string("nodes: [{name: n, l4: {interface: eth0}, dns: {}}]\nprobes: [{name: check, port: 80}]\n"
                    "pools:\n  - {name: app, probe: check, backends: [{name: a, ") +
        where +
        "}]}\nvips: [{name: v, addresses: [192.0.2.9]}]\nservices: [{name: web, vip: v, port: 80, pool: app}]\n"
        "steers: [{name: www.example.test, targets: [{pool: app}]}]\n");
    std::map<std::string, std::string> faults;
    for (const Fault& fault : loaded.faults) {
      if (fault.code == "no_address") faults[fault.pointer] = fault.detail;
    }
    return faults;
  };
  const std::string backend = " backend 'a' of pool 'app', which has no address";
  const std::map<std::string, std::string> expected = {
      {"/pools/0/probe", "probe 'check' cannot check" + backend},
      {"/services/0/pool", "service 'web' cannot forward to" + backend},
      {"/steers/0/targets/0/pool", "steer 'www.example.test.' cannot lead to" + backend}};
  EXPECT_EQ(told("socket: /run/app"), expected);
  for (const char* named : {"host: app.internal, port: 80", "srv: _http._tcp.app.internal"}) {
    EXPECT_THAT(told(named), IsEmpty()) << named;
  }
}

TEST(Validate, RefusesWaysOfConnectingThatWouldDoNothing) {
  const auto codes = [](const std::string& keys) {
    return load_text("pools:\n  - {name: app, backends: [{name: a, addresses: [192.0.2.1], port: 80}]" + keys + "}\n")
        .codes();
  };
  EXPECT_THAT(codes(", local_addresses: [192.0.2.1, 192.0.2.2]"), ElementsAre("too_many_addresses"));
  EXPECT_THAT(codes(", local_addresses: [192.0.2.1, '2001:db8::1'], proxy_protocol: v2"), IsEmpty());
  for (const char* wrong : {"h2c", "HTTP/2.0", "h2", "a b", "a/b/c", "'a, b'"}) {
    EXPECT_THAT(codes(std::string(", upgrades: [") + wrong + "]"), ElementsAre("bad_value")) << wrong;
  }
  EXPECT_THAT(codes(", protocol: h2, upgrades: [echo]"), IsEmpty());
  EXPECT_THAT(codes(", upgrades: [websocket, echo/1.0, tcp]"), IsEmpty());
}

TEST(Validate, RefusesLabelsThatNoBackendHas) {
  const auto codes = [](const std::string& route) {
    return load_text(
               "pools:\n  - {name: app, backends: [{name: a, addresses: [192.0.2.1], port: 80, labels: [x, y]}, "
               "{name: b, addresses: [192.0.2.2], port: 80, labels: [z]}]}\n"
               "listeners: [{name: l, bind: ['0.0.0.0:80']}]\nroutes: [{name: r, " +
               route + "}]\n")
        .codes();
  };
  EXPECT_THAT(codes("pool: app, labels: [w]"), ElementsAre("no_such_name"));
  EXPECT_THAT(codes("pool: app, labels: [x, z]"), ElementsAre("no_such_name"));
  EXPECT_THAT(codes("status: 200, labels: [x]"), ElementsAre("without_effect"));
  EXPECT_THAT(codes("pool: app, labels_required: false"), ElementsAre("without_effect"));
  EXPECT_THAT(codes("pool: app, labels: [y, x], labels_required: false"), IsEmpty());
  EXPECT_THAT(codes("pool: app, grpc_web: true"), ElementsAre("without_effect")) << "the pool speaks HTTP/1.1";
  EXPECT_THAT(codes("status: 200, grpc_web: true"), ElementsAre("without_effect"));
  EXPECT_THAT(codes("pool: app, queue_priority: low"), IsEmpty());
  EXPECT_THAT(codes("status: 200, queue_priority: low"), ElementsAre("without_effect"));
  EXPECT_THAT(codes("pool: app, queue_priority: highest"), ElementsAre("no_such_choice"));
}

TEST(Validate, RefusesAProtocolThatOnlyTlsCouldChoose) {
  const auto codes = [](const std::string& keys) {
    return load_text("pools:\n  - {name: app, backends: [{name: a, addresses: [192.0.2.1], port: 80}]" + keys + "}\n")
        .codes();
  };
  EXPECT_THAT(codes(", protocol: auto"), ElementsAre("without_effect"));
  for (const char* sound :
       {", protocol: h1", ", protocol: h2", ", protocol: h2, tls: true", ", protocol: auto, tls: true"}) {
    EXPECT_THAT(codes(sound), IsEmpty()) << sound;
  }
}

TEST(Validate, FindsFaultsOfEveryKindInOneRun) {
  EXPECT_THAT(
      load_text("vips:\n  - {name: a, site: eu, addresses: [192.0.2.1]}\n  - {name: b, addresses: [192.0.2.1]}\n"
                "routes: [{name: r}]\nnodez: []\n")
          .codes(),
      ElementsAre("no_such_name", "unknown_key", "overlapping_vips", "exactly_one"));
}

}  // namespace tidegate::validate_test
