// SPDX-License-Identifier: Apache-2.0
// Rules between keys: one document for each rule, and the fault that it is refused with.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ctime>
#include <fstream>
#include <map>
#include <sstream>

#include "conf/limits.h"
#include "conf/warnings.h"
#include "tests/unit/conf/documents.h"
#include "tests/unit/core/made_authority.h"

namespace tidegate::validate_test {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
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

TEST(Validate, RefusesAnAddressInTwoVips) {
  const auto loaded =
      load_text("vips:\n  - {name: a, addresses: [192.0.2.1]}\n  - {name: b, addresses: [192.0.2.2, 192.0.2.1]}\n");
  ASSERT_THAT(loaded.codes(), ElementsAre("overlapping_vips"));
  EXPECT_EQ(loaded.faults[0].pointer, "/vips/1/addresses/1");
  EXPECT_EQ(loaded.faults[0].hint, "vip 'a' holds it, line 2");
}

TEST(Validate, RefusesAnInterfaceTwiceAndOneWithoutAName) {
  const auto loaded = load_text("nodes: [{name: n, dns: {listen: ['192.0.2.1:53'], xdp: [eth0, eth1, eth0]}}]\n");
  ASSERT_THAT(loaded.codes(), ElementsAre("duplicate_name"));
  EXPECT_EQ(loaded.faults[0].pointer, "/nodes/0/dns/xdp/2");
  EXPECT_THAT(load_text("nodes: [{name: n, dns: {xdp: ['', sixteen-letters-]}}]\n").codes(),
              ElementsAre("empty_value", "out_of_range"));
  EXPECT_THAT(load_text("nodes: [{name: n, dns: {xdp: [eth0, fifteen-letters]}}]\n").codes(), IsEmpty());
}

TEST(Warnings, NameWhatIsLegalAndSurelyNotMeant) {
  const auto warnings_of = [](const std::string& text) {
    const auto loaded = load_text(text);
    EXPECT_THAT(loaded.codes(), IsEmpty()) << text;
    std::vector<std::string> told;
    if (!loaded.model) return told;
    for (const Fault& fault : find_warnings(*loaded.document, *loaded.model, 1'800'000'000)) {
      told.push_back(fault.code + " " + fault.pointer);
    }
    return told;
  };
  const std::string plain = std::string(kPools) + "listeners: [{name: l, bind: ['0.0.0.0:80']}]\nroutes:\n";
  EXPECT_THAT(warnings_of(plain + "  - {name: r, pool: app}\n"), IsEmpty());
  EXPECT_THAT(warnings_of(plain + "  - {name: r, status: 404}\n"), ElementsAre("unused /pools/0/name"));
  EXPECT_THAT(warnings_of(plain + "  - {name: r, pool: app}\n  - {name: s, path: /s, redirect: 'http://{host}/s'}\n"),
              ElementsAre("endless_redirect /routes/1/redirect"));
  EXPECT_THAT(warnings_of(plain + "  - {name: r, pool: app}\n  - {name: s, path: /s, redirect: 'https://{host}/s'}\n"),
              IsEmpty());
  // Other spellings of the same place, patterns that take what they lead to, and their twins that lead elsewhere.
  const auto circles = [&](const std::string& path, const std::string& to, const std::string& more = "") {
    return warnings_of(plain + "  - {name: r, pool: app}\n  - {name: s, path: '" + path + "', redirect: '" + to + "'" +
                       more + "}\n")
        .size();
  };
  for (const auto& [path, to] :
       std::initializer_list<std::pair<const char*, const char*>>{{"/z/*", "/z/foo"},
                                                                  {"/a/{id}", "http://any.example/a/1"},
                                                                  {"/a/{id}", "/a/{id}"},
                                                                  {"/w", "//any.example/w"},
                                                                  {"/v", "/v?x=1"},
                                                                  {"/u", "http://{host}:80/u#part"},
                                                                  {"/t", "HTTP://Any.Example/t"},
                                                                  {"/q/*", "http://{authority}{path}"}}) {
    EXPECT_EQ(circles(path, to), 1u) << path << " " << to;
  }
  for (const auto& [path, to] : std::initializer_list<std::pair<const char*, const char*>>{{"/z/*", "/y/foo"},
                                                                                           {"/a/{id}", "/a/1/2"},
                                                                                           {"/w", "https://{host}/w"},
                                                                                           {"/u", "http://{host}:81/u"},
                                                                                           {"/t", "t"}}) {
    EXPECT_EQ(circles(path, to), 0u) << path << " " << to;
  }
  EXPECT_EQ(circles("/t", "http://B.a.test/t", ", hosts: ['*.a.test']"), 1u);
  EXPECT_EQ(circles("/t", "http://b.test/t", ", hosts: ['*.a.test']"), 0u);
  EXPECT_EQ(circles("/z/*", "/z/foo", "}\n  - {name: t, path: /z/foo, pool: app"), 0u) << "a better route takes it";
  for (const char* bare : {"401", "405", "407", "416", "426"}) {
    EXPECT_THAT(warnings_of(plain + "  - {name: r, pool: app}\n  - {name: s, path: /s, status: " + bare + "}\n"),
                ElementsAre("bare_status /routes/1/status"));
  }
  EXPECT_THAT(warnings_of(plain + "  - {name: r, pool: app}\n  - {name: s, path: /s, status: 401, response_headers: "
                                  "{www-authenticate: Basic}}\n"),
              IsEmpty());
  EXPECT_THAT(
      warnings_of(plain + "  - {name: r, pool: app}\nprobes: [{name: p, type: tcp, interval: 1s, timeout: 2s}]\n"),
      ElementsAre("slow_probe /probes/0/timeout", "unused /probes/0/name"));
}

TEST(Warnings, NameCertificatesThatNobodyCanAskAboutOrMustAskAbout) {
  const MadeAuthority authority("authority");
  const auto warnings_of = [](const TlsIdentity& identity, const std::string& more) {
    const auto loaded =
        load_text("certificates: [{name: c, certificate_file: crt, key_file: key" + more +
                      "}]\nlisteners: [{name: s, bind: ['0.0.0.0:443'], tls: {certificates: [c]}}]\n",
                  {{"crt", testing::content(identity.certificate_pem)}, {"key", testing::content(identity.key_pem)}});
    EXPECT_THAT(loaded.codes(), IsEmpty());
    std::vector<std::string> told;
    if (!loaded.model) return told;
    for (const Fault& fault : find_warnings(*loaded.document, *loaded.model, std::time(nullptr))) {
      told.push_back(fault.code + " " + fault.pointer);
    }
    return told;
  };
  TlsIdentity plain = authority.issue({.purpose = "serverAuth"});
  TlsIdentity whole = authority.issue({.purpose = "serverAuth", .responder = "http://ocsp.test", .must_staple = true});
  EXPECT_THAT(warnings_of(plain, ""), IsEmpty());
  EXPECT_THAT(warnings_of(whole, ""), ElementsAre("must_staple /certificates/0/certificate_file"));
  EXPECT_THAT(warnings_of(whole, ", ocsp: {}"), ElementsAre("no_issuer /certificates/0/certificate_file"));
  whole.certificate_pem += authority.pem();
  plain.certificate_pem += authority.pem();
  EXPECT_THAT(warnings_of(whole, ", ocsp: {}"), IsEmpty());
  EXPECT_THAT(warnings_of(plain, ", ocsp: {}"), ElementsAre("no_responder /certificates/0/ocsp"));
  EXPECT_THAT(warnings_of(plain, ", ocsp: {responder: 'http://ocsp.test'}"), IsEmpty());
}

TEST(Warnings, NamePortsAtWhichAnAuthorityFindsNobody) {
  const auto warnings_of = [](const std::string& challenge, const std::string& listener) {
    const auto loaded = load_text(
        "acme: {directory: 'https://ca.test/dir', terms_agreed: true}\n"
        "certificates: [{name: c, acme: {names: [www.example.test], challenge: " +
        challenge + "}}]\nlisteners: [{name: s, bind: ['0.0.0.0:8443'], tls: {certificates: [c]}}, " + listener +
        "]\n");
    EXPECT_THAT(loaded.codes(), IsEmpty());
    std::vector<std::string> told;
    if (!loaded.model) return told;
    for (const Fault& fault : find_warnings(*loaded.document, *loaded.model, 0)) {
      told.push_back(fault.code + " " + fault.pointer);
    }
    return told;
  };
  const std::string missing = "no_port_for_authority /certificates/0/acme";
  EXPECT_THAT(warnings_of("http-01", "{name: p, bind: ['0.0.0.0:80']}"), IsEmpty());
  EXPECT_THAT(warnings_of("http-01", "{name: p, bind: ['0.0.0.0:8080', '[::]:80']}"), IsEmpty());
  EXPECT_THAT(warnings_of("http-01", "{name: p, bind: ['0.0.0.0:8080']}"), ElementsAre(missing));
  EXPECT_THAT(warnings_of("http-01", "{name: p, bind: ['0.0.0.0:80'], tls: {certificates: [c]}}"),
              ElementsAre(missing));
  EXPECT_THAT(warnings_of("tls-alpn-01", "{name: p, bind: ['0.0.0.0:443'], tls: {certificates: [c]}}"), IsEmpty());
  EXPECT_THAT(warnings_of("tls-alpn-01", "{name: p, bind: ['0.0.0.0:443']}"), ElementsAre(missing));
}

TEST(Validate, RefusesAPortThatTwoDaemonsOfANodeBind) {
  const auto document = [](const std::string& node, const std::string& bind) {
    return load_text("sites: [{name: eu}, {name: us}]\nnodes:\n  - {name: n, site: eu, l7: {workers: 1}, " + node +
                     "}\nlisteners: [{name: web, site: eu, bind: ['" + bind + "']}]\n");
  };
  const auto dns = document("dns: {listen: ['192.0.2.1:53']}", "0.0.0.0:53");
  ASSERT_THAT(dns.codes(), ElementsAre("colliding_ports"));
  EXPECT_EQ(dns.faults[0].pointer, "/listeners/0/bind/0");
  EXPECT_EQ(dns.faults[0].detail, "node 'n' binds 0.0.0.0:53 twice");
  EXPECT_EQ(dns.faults[0].hint, "dns.listen has 192.0.2.1:53, line 3");
  EXPECT_THAT(document("dns: {listen: ['192.0.2.1:53'], httpdns_listen: ['192.0.2.1:443']}", "192.0.2.1:443").codes(),
              ElementsAre("colliding_ports"));
  EXPECT_THAT(document("dns: {listen: ['192.0.2.1:53'], httpdns_listen: ['192.0.2.1:53']}", "192.0.2.1:80").codes(),
              ElementsAre("colliding_ports"));
  EXPECT_THAT(document("management: '[2001:db8::1]:9090'", "[::]:9090").codes(), ElementsAre("colliding_ports"));
  // Another address, family, port or site does not collide.
  EXPECT_THAT(document("dns: {listen: ['192.0.2.1:53']}", "192.0.2.2:53").codes(), IsEmpty());
  EXPECT_THAT(document("dns: {listen: ['192.0.2.1:53']}", "[::]:53").codes(), IsEmpty());
  EXPECT_THAT(document("management: '192.0.2.1:9090'", "192.0.2.1:9091").codes(), IsEmpty());
  EXPECT_THAT(load_text("sites: [{name: eu}, {name: us}]\n"
                        "nodes: [{name: n, site: us, l7: {workers: 1}, dns: {listen: ['0.0.0.0:53']}}]\n"
                        "listeners: [{name: web, site: eu, bind: ['0.0.0.0:53']}]\n")
                  .codes(),
              IsEmpty());
}

TEST(Validate, RefusesTwoServicesOnOnePortOfAVip) {
  const std::string head =
      std::string(kPools) +
      "vips: [{name: v, addresses: [192.0.2.9]}]\nservices:\n  - {name: a, vip: v, port: 53, pool: app}\n";
  EXPECT_THAT(load_text(head + "  - {name: b, vip: v, port: 53, pool: app}\n").codes(),
              ElementsAre("colliding_services"));
  EXPECT_THAT(load_text(head + "  - {name: b, vip: v, port: 53, pool: app, protocol: udp}\n").codes(), IsEmpty());
}

TEST(Validate, RefusesRangesOfPortsThatOverlapOrAreEmpty) {
  const std::string head = std::string(kPools) +
                           "vips: [{name: v, addresses: [192.0.2.9]}]\nservices:\n  - {name: a, vip: v, port: 100, "
                           "last_port: 200, pool: app}\n";
  const auto codes = [&](const std::string& more) {
    return load_text(head + "  - {name: b, vip: v, pool: app, " + more + "}\n").codes();
  };
  EXPECT_THAT(codes("port: 150"), IsEmpty()) << "a single port goes first";
  EXPECT_THAT(codes("port: 201, last_port: 300"), IsEmpty());
  EXPECT_THAT(codes("port: 1, last_port: 99"), IsEmpty());
  EXPECT_THAT(codes("port: 150, last_port: 250, protocol: udp"), IsEmpty());
  EXPECT_THAT(codes("port: 200, last_port: 300"), ElementsAre("colliding_services"));
  EXPECT_THAT(codes("port: 1, last_port: 100"), ElementsAre("colliding_services"));
  EXPECT_THAT(codes("port: 1, last_port: 65535"), ElementsAre("colliding_services"));
  EXPECT_THAT(codes("port: 120, last_port: 130"), ElementsAre("colliding_services"));
  EXPECT_THAT(codes("port: 300, last_port: 300"), ElementsAre("empty_range"));
  EXPECT_THAT(codes("port: 300, last_port: 7"), ElementsAre("empty_range"));
}

TEST(Validate, RefusesTunnelsThatCannotWork) {
  const auto codes = [](const std::string& service, const std::string& backend = "", const std::string& second = "") {
    return load_text("pools: [{name: app, backends: [{name: b, addresses: ['2001:db8::1'], port: 80" + backend +
                     "}]}]\nvips: [{name: v, addresses: [192.0.2.9]}]\nservices:\n  - {name: a, vip: v, port: 1, pool: "
                     "app, " +
                     service + "}\n" + second)
        .codes();
  };
  const std::string other = "  - {name: c, vip: v, port: 2, pool: app, forwarding: ";
  EXPECT_THAT(codes("forwarding: ipip"), IsEmpty()) << "the other family is the tunnel's";
  EXPECT_THAT(codes("forwarding: l2dsr"), ElementsAre("other_family"));
  EXPECT_THAT(codes("forwarding: vxlan"), ElementsAre("missing_vni"));
  EXPECT_THAT(codes("forwarding: vxlan, vni: 7"), IsEmpty());
  EXPECT_THAT(codes("forwarding: gue", ", mtu: 1350"), IsEmpty());
  EXPECT_THAT(codes("forwarding: gue", ", mtu: 1349"), ElementsAre("out_of_range"));
  EXPECT_THAT(codes("forwarding: gue", "", other + "gue}\n"), IsEmpty());
  EXPECT_THAT(codes("forwarding: gue", "", other + "ipip}\n"), ElementsAre("mixed_forwarding"));
  EXPECT_THAT(codes("forwarding: gue", "", other + "gue, tunnel_port: 9}\n"), ElementsAre("mixed_forwarding"));
}

TEST(Validate, RefusesAnOuterTagWithoutAnInnerOne) {
  const auto codes = [](const std::string& tags) {
    return load_text("nodes: [{name: n, l4: {ports: [{device: eth0" + tags + "}]}}]\n").codes();
  };
  EXPECT_THAT(codes(", vlan: 7"), IsEmpty());
  EXPECT_THAT(codes(", vlan: 7, outer_vlan: 8"), IsEmpty());
  EXPECT_THAT(codes(", outer_vlan: 8"), ElementsAre("missing_vlan"));
  EXPECT_THAT(codes(", vlan: 4095"), ElementsAre("out_of_range"));
}

TEST(Validate, RefusesAnMtuThatTheKernelOrTheLinkHas) {
  const auto codes = [](const std::string& port) {
    return load_text("nodes: [{name: n, l4: {ports: [{" + port + "}]}}]\n").codes();
  };
  EXPECT_THAT(codes("device: '0000:01:00.0', mtu: 9000"), IsEmpty());
  EXPECT_THAT(codes("device: 'a,b', driver: pcap, mtu: 9000"), IsEmpty());
  EXPECT_THAT(codes("device: '0000:01:00.0', mtu: 1279"), ElementsAre("out_of_range"));
  EXPECT_THAT(codes("device: '0000:01:00.0', mtu: 9601"), ElementsAre("out_of_range"));
  EXPECT_THAT(codes("device: eth0, mtu: 9000"), ElementsAre("without_effect"));
  EXPECT_THAT(codes("device: '0000:01:00.0', driver: af_xdp, mtu: 9000"), ElementsAre("without_effect"));
}

TEST(Validate, RefusesSharedFlowsThatNoForwarderOfTheSiteCouldHearOf) {
  const auto codes = [](const std::string& site, const std::string& one, const std::string& other) {
    return load_text(
               "sites: [{name: eu}, {name: us}]\nnodes:\n  - {name: a, site: eu, l4: {ports: [{device: eth0}], "
               "share_flows: '" +
               one + "'}}\n  - {name: b" + site + ", l4: {ports: [{device: eth0}], share_flows: '" + other + "'}}\n")
        .codes();
  };
  EXPECT_THAT(codes(", site: eu", "192.0.2.1:7400", "192.0.2.2:7400"), IsEmpty());
  EXPECT_THAT(codes("", "192.0.2.1:7400", "192.0.2.2:7400"), ElementsAre("missing_site"));
  EXPECT_THAT(codes(", site: eu", "192.0.2.1:7400", "0.0.0.0:7400"), ElementsAre("no_such_address"));
  EXPECT_THAT(codes(", site: eu", "192.0.2.1:7400", "[2001:db8::2]:7400"), ElementsAre("mixed_families"));
  EXPECT_THAT(codes(", site: eu", "192.0.2.1:7400", "192.0.2.1:7400"), ElementsAre("duplicate_address"));
  EXPECT_THAT(codes(", site: us", "192.0.2.1:7400", "192.0.2.1:7400"), IsEmpty()) << "sites may use the same addresses";
  // Another daemon of the node may have the port over TCP, and not over UDP.
  const auto beside = [](const std::string& other) {
    return load_text(
               "sites: [{name: eu}]\nnodes: [{name: a, site: eu, l4: {ports: [{device: eth0}], share_flows: "
               "'192.0.2.1:53'}, " +
               other + "}]\n")
        .codes();
  };
  EXPECT_THAT(beside("management: '192.0.2.1:53'"), IsEmpty());
  EXPECT_THAT(beside("dns: {listen: ['192.0.2.1:53']}"), ElementsAre("colliding_ports"));
  EXPECT_THAT(beside("dns: {httpdns_listen: ['192.0.2.1:53']}"), IsEmpty());
}

TEST(Validate, RefusesASecondTunnelSourceOfAFamily) {
  const auto codes = [](const std::string& sources) {
    return load_text("nodes: [{name: n, l4: {ports: [{device: eth0}], tunnel_sources: [" + sources + "]}}]\n").codes();
  };
  EXPECT_THAT(codes("198.18.0.0/16, 'fd00::/64'"), IsEmpty());
  EXPECT_THAT(codes("198.18.0.0/16, 198.19.0.0/16"), ElementsAre("too_many_addresses"));
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

// Two routes at one host and path: the priority decides, then the number of conditions; else no request may meet both.
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

TEST(Validate, WantsOneAddressAFamily) {
  EXPECT_THAT(load_text("pools: [{name: app, backends: [{name: a, addresses: [192.0.2.1, '2001:db8::1']}]}]\n").codes(),
              IsEmpty());
  EXPECT_THAT(load_text("pools: [{name: app, backends: [{name: a, addresses: [192.0.2.1, 192.0.2.2]}]}]\n").codes(),
              ElementsAre("too_many_addresses"));
  EXPECT_THAT(load_text("pools: [{name: app, backends: [{name: a, addresses: []}]}]\n").codes(),
              ElementsAre("exactly_one"));
  EXPECT_THAT(load_text("pools: [{name: app, backends: [{name: a}]}]\n").codes(), ElementsAre("exactly_one"));
}

TEST(Validate, RefusesAddressesThatNoHostCanHave) {
  const auto codes_of_vip = [](const std::string& address) {
    return load_text("vips: [{name: v, addresses: ['" + address + "']}]\n").codes();
  };
  for (const char* address : {"0.0.0.0", "0.1.2.3", "127.0.0.1", "224.0.0.1", "239.255.255.255", "240.0.0.1",
                              "255.255.255.255", "::", "::1", "ff02::1", "::ffff:192.0.2.1"}) {
    EXPECT_THAT(codes_of_vip(address), ElementsAre("impossible_address")) << address;
  }
  for (const char* address :
       {"1.0.0.1", "126.0.0.1", "128.0.0.1", "223.255.255.255", "::2", "fe80::1", "2001:db8::1"}) {
    EXPECT_THAT(codes_of_vip(address), IsEmpty()) << address;
  }
  const auto codes_of_port = [](const std::string& port) {
    return load_text("nodes: [{name: n, l4: {ports: [{device: eth0, " + port + "}]}}]\n").codes();
  };
  EXPECT_THAT(codes_of_port("addresses: [127.0.0.2/24]"), ElementsAre("impossible_address"));
  EXPECT_THAT(codes_of_port("addresses: [192.0.2.2/24], gateways: [224.0.0.1]"), ElementsAre("impossible_address"));
  EXPECT_THAT(codes_of_port("addresses: [192.0.2.2/24], gateways: [192.0.2.2]"), ElementsAre("impossible_address"));
  EXPECT_THAT(codes_of_port("addresses: [192.0.2.2/24], gateways: ['2001:db8::1']"), ElementsAre("other_family"));
  EXPECT_THAT(codes_of_port("addresses: [192.0.2.2/24], gateways: [192.0.2.1]"), IsEmpty());
  for (const char* own : {"192.0.2.0/24", "192.0.2.255/24", "192.0.2.3/30"}) {
    EXPECT_THAT(codes_of_port(std::string("addresses: [") + own + "]"), ElementsAre("impossible_address")) << own;
  }
  for (const char* own : {"192.0.2.0/31", "192.0.2.255/32", "192.0.2.2/30", "'2001:db8::/64'"}) {
    EXPECT_THAT(codes_of_port(std::string("addresses: [") + own + "]"), IsEmpty()) << own;
  }
  for (const char* gateway : {"198.51.100.1", "192.0.2.255"}) {
    EXPECT_THAT(codes_of_port(std::string("addresses: [192.0.2.2/24], gateways: [") + gateway + "]"),
                ElementsAre("impossible_address"))
        << gateway;
  }
  EXPECT_THAT(codes_of_port("addresses: [192.0.2.2/32], gateways: [198.51.100.1]"), IsEmpty());
  EXPECT_THAT(codes_of_port("addresses: ['2001:db8::2/64'], gateways: ['fe80::1']"), IsEmpty());
}

// What the forwarder itself holds is nobody else's address. Another site may use the same private addresses.
TEST(Validate, RefusesTheForwardersOwnAddressesElsewhere) {
  const auto codes = [](const std::string& port, const std::string& vip, const std::string& backend,
                        const std::string& site) {
    return load_text(
               "sites: [{name: eu, location: {latitude: 50, longitude: 8}}, "
               "{name: us, location: {latitude: 40, longitude: -74}}]\n"
               "nodes: [{name: n, site: eu, l4: {ports: [{device: eth0, " +
               port + "}]}}]\nvips: [{name: v, site: " + site + ", addresses: [" + vip +
               "]}]\nservices: [{name: s, vip: v, port: 80, pool: app}]\n"
               "pools: [{name: app, backends: [{name: a, addresses: [" +
               backend + "]}]}]\n")
        .codes();
  };
  const std::string port = "addresses: [10.0.0.2/24], gateways: [10.0.0.1]";
  EXPECT_THAT(codes(port, "10.0.0.100", "10.0.0.11", "eu"), IsEmpty());
  EXPECT_THAT(codes(port, "10.0.0.100", "10.0.0.2", "eu"), ElementsAre("impossible_address"));
  EXPECT_THAT(codes(port, "10.0.0.100", "10.0.0.2", "us"), IsEmpty());
  EXPECT_THAT(codes(port, "10.0.0.255", "10.0.0.11", "eu"), ElementsAre("impossible_address"));
  EXPECT_THAT(codes(port, "10.0.0.255", "10.0.0.11", "us"), IsEmpty());
  EXPECT_THAT(codes(port, "10.0.0.2", "10.0.0.11", "eu"), ElementsAre("impossible_address"));
  EXPECT_THAT(codes(port, "10.0.0.1", "10.0.0.11", "eu"), ElementsAre("impossible_address"));
  EXPECT_THAT(codes(port, "10.0.0.1", "10.0.0.11", "us"), IsEmpty());
}

// A pool that only routes use may have backends at the loopback address, which is the proxy's own host.
TEST(Validate, RefusesBackendsThatPacketsCannotBeForwardedTo) {
  const auto codes = [](const std::string& address, const std::string& vip, bool service) {
    return load_text("vips: [{name: v, addresses: ['" + vip + "']}]\n" +
                     (service ? "services: [{name: s, vip: v, port: 80, pool: app}]\n" : "") +
                     "pools: [{name: app, backends: [{name: a, addresses: ['" + address + "']}]}]\n")
        .codes();
  };
  EXPECT_THAT(codes("192.0.2.1", "192.0.2.100", true), IsEmpty());
  EXPECT_THAT(codes("127.0.0.1", "192.0.2.100", true), ElementsAre("impossible_address"));
  EXPECT_THAT(codes("127.0.0.1", "192.0.2.100", false), IsEmpty());
  EXPECT_THAT(codes("192.0.2.100", "192.0.2.100", true), ElementsAre("impossible_address"));
  EXPECT_THAT(codes("2001:db8::1", "192.0.2.100", true), ElementsAre("other_family"));
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

TEST(Validate, NamesTheNextPrimeForMaglevSlots) {
  const auto loaded = load_text("nodes: [{name: n, l4: {maglev_slots: 65536}}]\n");
  ASSERT_THAT(loaded.codes(), ElementsAre("not_prime"));
  EXPECT_EQ(loaded.faults[0].hint, "the next one is 65537");
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

// A unix socket is for the proxy alone. Each that refers to such a pool is told at its own key.
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
