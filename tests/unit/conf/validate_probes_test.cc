// SPDX-License-Identifier: Apache-2.0
// Cross checks of probes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "conf/byte_text.h"
#include "tests/unit/conf/documents.h"

namespace tidegate::validate_probes_test {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using testing::load_text;

std::vector<std::string> codes(const std::string& keys) {
  return load_text("probes:\n  - {name: p, port: 80" + keys + "}\n").codes();
}

TEST(ValidateProbes, TakesEachTypeWithItsKeys) {
  for (const char* keys :
       {", type: tcp, send: 'PING', expect: PONG", ", type: tcp", ", type: udp, send: ping, expect: pong",
        ", type: udp, send: ping", ", type: dns, dns_name: example.com, dns_type: A, dns_rcode: NXDOMAIN",
        ", type: dns", ", type: tls, host: example.com, tls_days: 30", ", type: tls, tls_verify: false, tls_days: 0",
        ", type: http, hold: 10s", ", type: grpc",
        ", type: command, command: [check_it, -w, '5', -c, '5', '{address}', '']",
        ", type: grpc, tls: true, grpc_service: app.Orders, host: example.com"}) {
    EXPECT_THAT(codes(keys), IsEmpty()) << keys;
  }
}

TEST(ValidateProbes, RefusesAKeyOfAnotherType) {
  for (const char* keys :
       {", type: http, send: x", ", type: http, expect: x", ", type: tcp, dns_name: example.com",
        ", type: udp, send: x, tls_days: 3", ", type: dns, path: /x", ", type: dns, host: x",
        ", type: tls, expect_status: 200", ", type: udp, send: x, tls_verify: true", ", type: http, grpc_service: x",
        ", type: http, command: [x]", ", type: command, command: [x], send: x", ", type: https, tls: true"}) {
    EXPECT_THAT(codes(keys), ElementsAre("without_effect")) << keys;
  }
}

TEST(ValidateProbes, TakesWhatOlderDocumentsMayHave) {
  EXPECT_THAT(codes(", type: tcp, path: /healthz, expect_status: 200"), IsEmpty());
}

TEST(ValidateProbes, RefusesWhatATypeCannotDoWithout) {
  EXPECT_THAT(codes(", type: udp"), ElementsAre("missing_send"));
  EXPECT_THAT(codes(", type: dns, dns_name: 'a..b'"), ElementsAre("malformed_name"));
  EXPECT_THAT(codes(", type: dns, dns_type: AXFR").size(), 1U);
  EXPECT_THAT(codes(", type: command"), ElementsAre("missing_command"));
  for (const char* program : {"/bin/sh", "../sh", "..", ".hidden", "a/b", "''", "-c"}) {
    EXPECT_THAT(codes(std::string(", type: command, command: [") + program + "]"), ElementsAre("bad_value")) << program;
  }
  std::string many = ", type: command, command: [x";
  for (int i = 0; i < 32; ++i) many += ", y";
  EXPECT_THAT(codes(many + "]"), ElementsAre("out_of_range"));
}

TEST(ValidateProbes, ReadsEscapesAndRefusesWhatIsNone) {
  EXPECT_THAT(codes(R"(, type: tcp, send: 'GET / HTTP/1.0\r\n\r\n', expect: '\x00\\')"), IsEmpty());
  EXPECT_THAT(codes(R"(, type: tcp, send: "GET / HTTP/1.0\r\n\r\n")"), IsEmpty()) << "line ends by YAML's escapes";
  for (const char* text : {R"(\q)", R"(\x1)", R"(\xzz)", R"(\x+1)", R"(ends in \)"}) {
    EXPECT_THAT(codes(std::string(", type: tcp, send: '") + text + "'"), ElementsAre("bad_value")) << text;
    EXPECT_THAT(codes(std::string(", type: tcp, expect: '") + text + "'"), ElementsAre("bad_value")) << text;
  }
}

// An edge in which a probe can go through the forwarder, with `probe`, `service` and `more` inserted.
std::vector<std::string> codes_of_edge(const std::string& probe, const std::string& service = "",
                                       const std::string& more = "") {
  return load_text(
             "sites: [{name: eu, location: {latitude: 1, longitude: 1}}, {name: us, location: {latitude: 2, longitude: "
             "2}}]\n"
             "nodes: [{name: f, site: eu, l4: {ports: [{device: eth0, addresses: [192.0.2.2/24]}]}}]\n"
             "vips: [{name: v, site: eu, addresses: [192.0.2.1]}, {name: w, site: us, addresses: [198.51.100.1]}]\n"
             "services:\n  - {name: s, vip: v, port: 443, pool: p" +
             service + "}\n" + more + "probes: [{name: q, via: vip" + probe +
             "}]\n"
             "pools: [{name: p, probe: q, backends: [{name: b, addresses: [192.0.2.11]}]}]\n")
      .codes();
}

TEST(ValidateProbes, TakesAProbeViaTheVipWhereAForwarderCanSendIt) {
  EXPECT_THAT(codes_of_edge(""), IsEmpty());
  EXPECT_THAT(codes_of_edge(", type: udp, send: x, expect: y", ", protocol: udp"), IsEmpty());
  EXPECT_THAT(codes_of_edge(", type: dns", ", protocol: udp"), IsEmpty());
  EXPECT_THAT(codes_of_edge(", type: dns, port: 53"), IsEmpty()) << "a port of its own, whatever the services have";
}

TEST(ValidateProbes, RefusesAProbeViaTheVipThatNobodyCouldSend) {
  EXPECT_THAT(codes_of_edge(", type: http"), ElementsAre("not_via_vip"));
  EXPECT_THAT(codes_of_edge(", send: x"), ElementsAre("without_effect"));
  EXPECT_THAT(codes_of_edge("", ", protocol: udp"), ElementsAre("not_via_vip")) << "nothing of tcp to ask for";
  EXPECT_THAT(codes_of_edge("", ", forwarding: gue"), IsEmpty());
  EXPECT_THAT(codes_of_edge("", "", "  - {name: t, vip: w, port: 443, pool: p}\n"), ElementsAre("not_via_vip"))
      << "two sites";
  std::string many;
  for (int port = 1; port <= 32; ++port) {
    many += "  - {name: s" + std::to_string(port) + ", vip: v, port: " + std::to_string(port) + ", pool: p}\n";
  }
  EXPECT_THAT(codes_of_edge("", "", many), ElementsAre("not_via_vip"));
}

TEST(ByteText, ReadsBackWhatItWritesForEachByte) {
  std::string all;
  for (int byte = 0; byte < 256; ++byte) all += static_cast<char>(byte);
  const std::string text = text_of_bytes(all);
  for (const char c : text) ASSERT_TRUE(c >= 0x20 && c <= 0x7e);
  EXPECT_EQ(*bytes_of_text(text), all);
  EXPECT_EQ(*bytes_of_text(R"(\r\n\t\0\\\xaF)"), std::string("\r\n\t\0\\\xaf", 6));
}

}  // namespace tidegate::validate_probes_test
