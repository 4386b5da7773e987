// SPDX-License-Identifier: Apache-2.0
// HTTPDNS in DNSPod's form. The requests are built here as its documents describe them.
#include "dns/httpdns/dnspod.h"
#include "conf/model.h"
#include "conf/model/httpdns.h"
#include "conf/model/steer.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "core/aes.h"
#include "core/crypto.h"
#include "core/des.h"
#include "tests/unit/dns/support.h"

namespace tidegate::dns::test::dnspod_test {

constexpr char kAesKey[] = "0123456789abcdef";  // the sixteen characters that a client is given
constexpr char kDesKey[] = "eightkey";
constexpr char kToken[] = "12345678";

class Dnspod : public ::testing::Test {
 protected:
  Dnspod() {
    edge_.add_zone("example.test.", kZone);
    const uint32_t eu = edge_.add_site("eu", 50.11, 8.68);
    const uint32_t us = edge_.add_site("us", 40.71, -74.0);
    const uint32_t vip_eu = edge_.add_vip("vip-eu", eu, {"203.0.113.1", "2001:db8:1::1"});
    const uint32_t vip_us = edge_.add_vip("vip-us", us, {"203.0.113.2", "2001:db8:2::1"});
    edge_.add_network("10.1.0.0/16", eu);
    edge_.add_network("10.2.0.0/16", us);
    edge_.add_steer("geo.example.test.", SteerPolicy::nearest, {to_vip(vip_eu), to_vip(vip_us)}).ttl_s = 5;
    auto& accounts = edge_.model().httpdns_accounts;
    accounts = {{"7", "secret"}, {"8", "secret"}, {"9", "secret", true}};
    accounts[0].des_key = kDesKey;
    accounts[0].aes_key = hex_encode(kAesKey);
    accounts[0].tokens = {kToken, "the-next-token"};
    accounts[1].des_key = "otherkey";
    accounts[1].tokens = {"87654321"};
  }

  HttpDnsAnswer ask(const std::string& query, const std::string& method = "GET", const std::string& body = "") {
    HttpRequest request;
    request.method = method;
    request.path = kDnspodPath;
    request.query = query;
    request.body = body;
    const Client client{*IpAddress::parse("10.1.0.9"), QueryTransport::http};
    return answer_dnspod(request, {client, edge_.tables(), edge_.worker(), scratch_, 1'700'000'000});
  }
  std::string by_token(const std::string& query) { return ask(fmt::format("token={}&{}", kToken, query)).body; }
  // A request sealed as DNSPod describes it, and its answer, opened.
  std::string by_des(const std::string& dn, const std::string& more = "", const std::string& ip = "") {
    const auto seal = [](const std::string& plain) { return hex_encode(des_seal(kDesKey, plain)); };
    const std::string client = ip.empty() ? "" : "&ip=" + seal(ip);
    const HttpDnsAnswer answer = ask("id=7&dn=" + seal(dn) + client + more);
    EXPECT_EQ(answer.error, HttpDnsError::none) << answer.body;
    return des_open(kDesKey, hex_decode(answer.body).value_or("")).value_or("not sealed");
  }
  std::string by_aes(const std::string& dn, const std::string& more = "") {
    const HttpDnsAnswer answer = ask("id=7&alg=aes&dn=" + hex_encode(aes128_seal(AesMode::cbc, kAesKey, dn)) + more);
    EXPECT_EQ(answer.error, HttpDnsError::none) << answer.body;
    return aes128_open(AesMode::cbc, kAesKey, hex_decode(answer.body).value_or("")).value_or("not sealed");
  }
  HttpDnsError error_of(const std::string& query, const std::string& method = "GET") {
    const HttpDnsAnswer answer = ask(query, method);
    EXPECT_TRUE(answer.error == HttpDnsError::none || answer.body == info(answer.error).code) << answer.body;
    return answer.error;
  }

  Edge edge_;
  std::vector<uint8_t> scratch_ = std::vector<uint8_t>(kMaxMessageBytes);
};

TEST_F(Dnspod, EveryFormOfTheTextIsWrittenAsDocumented) {
  EXPECT_EQ(by_token("dn=www.example.test"), "192.0.2.80;192.0.2.81");
  EXPECT_EQ(by_token("dn=www.example.test&ttl=1"), "192.0.2.80;192.0.2.81,60");
  EXPECT_EQ(by_token("dn=geo.example.test&ttl=1&clientip=1"), "203.0.113.1,5|10.1.0.9");
  EXPECT_EQ(by_token("dn=geo.example.test&ttl=1&clientip=1&ip=10.2.0.9"), "203.0.113.2,5|10.2.0.9");
  EXPECT_EQ(by_token("dn=geo.example.test&type=aaaa"), "2001:db8:1::1");
  EXPECT_EQ(by_token("dn=geo.example.test&type=AAAA&ttl=1"), "2001:db8:1::1,5");
  EXPECT_EQ(by_token("dn=geo.example.test&type=addrs&ttl=1&clientip=1"), "203.0.113.1,5-2001:db8:1::1,5|10.1.0.9");
  EXPECT_EQ(by_token("dn=geo.example.test&query=1&ttl=1"), "geo.example.test.:203.0.113.1,5");
  EXPECT_EQ(by_token("dn=geo.example.test.&query=1"), "geo.example.test.:203.0.113.1");
  EXPECT_EQ(by_token("dn=geo.example.test%2Cns1.example.test&ttl=1&clientip=1"),
            "geo.example.test.:203.0.113.1,5\nns1.example.test.:192.0.2.53,300|10.1.0.9");
}

TEST_F(Dnspod, WhatHasNoAddressIsWrittenAsNothingOrZero) {
  EXPECT_EQ(by_token("dn=nowhere.example.test&ttl=1&clientip=1"), "");
  EXPECT_EQ(by_token("dn=nowhere.example.test&query=1"), "nowhere.example.test.:0");
  EXPECT_EQ(by_token("dn=nowhere.example.test&type=addrs"), "0-0");
  EXPECT_EQ(by_token("dn=mail.example.test&type=addrs&ttl=1"), "192.0.2.25,300-0");
  EXPECT_EQ(by_token("dn=www.elsewhere.test"), "") << "another's name: its client asks elsewhere";
  EXPECT_EQ(by_token("dn=www.elsewhere.test,geo.example.test"), "www.elsewhere.test.:0\ngeo.example.test.:203.0.113.1");
}

TEST_F(Dnspod, SealedRequestsAreOpenedAndTheirAnswersSealed) {
  EXPECT_EQ(by_des("geo.example.test"), "203.0.113.1");
  EXPECT_EQ(by_des("geo.example.test", "&alg=des&ttl=1&clientip=1", "10.2.0.9"), "203.0.113.2,5|10.2.0.9");
  EXPECT_EQ(by_des("geo.example.test,ns1.example.test", "&type=addrs"),
            "geo.example.test.:203.0.113.1-2001:db8:1::1\nns1.example.test.:192.0.2.53-2001:db8::53");
  EXPECT_EQ(by_des("nowhere.example.test"), "") << "nothing, but sealed";
  EXPECT_EQ(by_aes("geo.example.test", "&ttl=1"), "203.0.113.1,5");
  EXPECT_EQ(by_aes("geo.example.test", "&ip=" + hex_encode(aes128_seal(AesMode::cbc, kAesKey, "2001:db8::7"))),
            "203.0.113.1");
}

TEST_F(Dnspod, ATokenOpensItsAccountAlone) {
  EXPECT_EQ(error_of("token=the-next-token&dn=geo.example.test"), HttpDnsError::none) << "each of several";
  EXPECT_EQ(error_of("token=12345678&id=7&dn=geo.example.test"), HttpDnsError::none);
  EXPECT_EQ(error_of("token=12345678&id=8&dn=geo.example.test"), HttpDnsError::invalid_account) << "another account";
  EXPECT_EQ(error_of("token=12345679&dn=geo.example.test"), HttpDnsError::invalid_token);
  EXPECT_EQ(error_of("token=1234567&dn=geo.example.test"), HttpDnsError::invalid_token);
}

TEST_F(Dnspod, PlainNamesWithoutATokenNeedAnAccountThatAllowsThem) {
  EXPECT_EQ(ask("id=9&dn=geo.example.test").body, "203.0.113.1");
  EXPECT_EQ(error_of("id=7&dn=geo.example.test"), HttpDnsError::unsigned_interface_disabled);
  EXPECT_EQ(error_of("dn=geo.example.test"), HttpDnsError::missing_argument);
}

TEST_F(Dnspod, WrongKeysAndGarbageAreRefusedByName) {
  const std::string other = hex_encode(des_seal("otherkey", "geo.example.test"));
  EXPECT_EQ(error_of("id=8&dn=" + other), HttpDnsError::none);
  EXPECT_EQ(error_of("id=7&dn=" + other), HttpDnsError::decryption_failed) << "the key of another account";
  EXPECT_EQ(error_of("id=7&alg=aes&dn=" + other), HttpDnsError::decryption_failed) << "another cipher";
  EXPECT_EQ(error_of("id=8&alg=aes&dn=" + other), HttpDnsError::invalid_mode) << "an account without such a key";
  EXPECT_EQ(error_of("id=9&dn=" + other), HttpDnsError::invalid_mode);
  EXPECT_EQ(error_of("id=7&alg=rot13&dn=" + other), HttpDnsError::invalid_mode);
  EXPECT_EQ(error_of("id=7&dn=zz"), HttpDnsError::decryption_failed);
  EXPECT_EQ(error_of("id=7&dn=00"), HttpDnsError::decryption_failed);
  EXPECT_EQ(error_of("id=7&dn=" + hex_encode(des_seal(kDesKey, "\n|;"))), HttpDnsError::decryption_failed)
      << "opened, but no names";
  EXPECT_EQ(error_of("id=7&dn=" + hex_encode(des_seal(kDesKey, "a.test")) + "&ip=00"), HttpDnsError::invalid_client_ip);
  EXPECT_EQ(error_of("token=12345678&dn=a.test&ip=300.1.1.1"), HttpDnsError::invalid_client_ip);
  EXPECT_EQ(error_of("token=12345678&dn=a%7Cb.test"), HttpDnsError::invalid_host);
  EXPECT_EQ(error_of("token=12345678"), HttpDnsError::missing_argument);
  EXPECT_EQ(error_of("id=99&dn=00"), HttpDnsError::account_not_exists);
  EXPECT_EQ(error_of("id=%22&dn=00"), HttpDnsError::invalid_account);
  EXPECT_EQ(error_of("id=7&dn=00", "PUT"), HttpDnsError::not_implemented);
  EXPECT_EQ(info(HttpDnsError::not_implemented).status, 501) << "as documented";
}

TEST_F(Dnspod, ABatchIsBounded) {
  std::string hosts = "ns1.example.test";
  for (int i = 1; i < 10; ++i) hosts += ",ns1.example.test";
  EXPECT_EQ(error_of("token=12345678&dn=" + hosts), HttpDnsError::none);
  EXPECT_EQ(error_of("token=12345678&dn=" + hosts + ",a.test"), HttpDnsError::too_many_hosts);
}

TEST_F(Dnspod, AFormMayBePosted) {
  EXPECT_EQ(ask("", "POST", "token=12345678&dn=geo.example.test&ttl=1").body, "203.0.113.1,5");
  EXPECT_EQ(ask("token=12345678", "POST", "dn=geo.example.test").body, "203.0.113.1");
}

}  // namespace tidegate::dns::test::dnspod_test
