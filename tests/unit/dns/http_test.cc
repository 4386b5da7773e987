// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "conf/model.h"
#include "conf/model/httpdns.h"
#include "conf/model/steer.h"
#include "core/aes.h"
#include "core/crypto.h"
#include "dns/httpdns/alibaba_v1.h"
#include "dns/httpdns/alibaba_v2.h"
#include "dns/httpdns/flat_json.h"
#include "dns/limits.h"
#include "dns/server/doh.h"
#include "dns/server/http_front.h"
#include "tests/unit/dns/support.h"

namespace tidegate::dns::test::http_test {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr uint64_t kNowS = 1'700'000'000;
constexpr char kAesKey[] = "000102030405060708090a0b0c0d0e0f";
constexpr char kSecret[] = "00112233445566778899aabbccddeeff";

class Http : public ::testing::Test {
 protected:
  Http() {
    edge_.add_zone("example.test.", kZone);
    const uint32_t eu = edge_.add_site("eu", 50.11, 8.68);
    const uint32_t us = edge_.add_site("us", 40.71, -74.0);
    const uint32_t vip_eu = edge_.add_vip("vip-eu", eu, {"203.0.113.1", "2001:db8:1::1"});
    const uint32_t vip_us = edge_.add_vip("vip-us", us, {"203.0.113.2", "2001:db8:2::1"});
    edge_.add_network("10.1.0.0/16", eu);
    edge_.add_network("10.2.0.0/16", us);
    edge_.add_steer("geo.example.test.", SteerPolicy::nearest, {to_vip(vip_eu), to_vip(vip_us)}).ttl_s = 5;
    edge_.model().httpdns_accounts = {
        {"1001", "open", true, {}, ""},
        {"1002", "IAmASecret", false, {"TheNextSecret"}, ""},
        {"1003", "00112233445566778899aabbccddeeff", false, {"ffeeddccbbaa99887766554433221100"}, kAesKey}};
  }

  HttpDnsAnswer get(const std::string& target, const std::string& client = "10.1.0.9",
                    const std::string& method = "GET") {
    HttpRequest request;
    request.method = method;
    const size_t mark = target.find('?');
    request.path = target.substr(0, mark);
    request.query = mark == std::string::npos ? "" : target.substr(mark + 1);
    const auto call = parse_httpdns_path(request.path);
    EXPECT_TRUE(call) << target;
    const Client from{*IpAddress::parse(client), QueryTransport::http};
    return answer_httpdns(*call, request, {from, edge_.tables(), edge_.worker(), scratch_, kNowS});
  }
  HttpDnsAnswer get_v2(const std::string& query, const std::string& client = "10.1.0.9",
                       const std::string& method = "GET") {
    HttpRequest request;
    request.method = method;
    request.path = kHttpDnsV2Path;
    request.query = query;
    const Client from{*IpAddress::parse(client), QueryTransport::http};
    return answer_httpdns_v2(request, {from, edge_.tables(), edge_.worker(), scratch_, kNowS});
  }
  static std::string signed_v2(const std::string& query, const std::string& secret = kSecret) {
    const std::string whole = query + "&exp=" + std::to_string(kNowS + 300);
    return whole + "&s=" + httpdns_v2_signature(whole, secret);
  }
  json body(const std::string& target, const std::string& client = "10.1.0.9") {
    return json::parse(get(target, client).body);
  }

  HttpResponse doh(const std::string& method, const std::string& query, const std::string& content = "",
                   const std::string& type = "application/dns-message") {
    HttpRequest request;
    request.method = method;
    request.path = kDohPath;
    request.query = query;
    request.body = content;
    if (!type.empty()) request.headers.emplace_back("content-type", type);
    return answer_doh(request, {*IpAddress::parse("10.2.0.9"), QueryTransport::http}, edge_.tables(), edge_.worker(),
                      scratch_);
  }

  Edge edge_;
  std::vector<uint8_t> scratch_ = std::vector<uint8_t>(kMaxMessageBytes);
};

TEST(HttpDns, SignsAsThePublishedVectorDoes) {
  EXPECT_EQ(httpdns_signature("www.aliyun.com", "IAmASecret", "1534316400"), "60c71e98b6d7fcbb366243e224eab457");
}

TEST_F(Http, OneHostIsSteeredByItsClient) {
  EXPECT_EQ(body("/1001/d?host=geo.example.test"),
            json::parse(
                R"({"host":"geo.example.test","ips":["203.0.113.1"],"ttl":5,"origin_ttl":5,"client_ip":"10.1.0.9"})"));
  EXPECT_EQ(body("/1001/d?host=geo.example.test&ip=10.2.0.1&platform=x&sid=1"),
            json::parse(
                R"({"host":"geo.example.test","ips":["203.0.113.2"],"ttl":5,"origin_ttl":5,"client_ip":"10.2.0.1"})"));
  EXPECT_EQ(body("/1001/d?host=geo.example.test&query=6")["ipsv6"], json({"2001:db8:1::1"}));
  const json both = body("/1001/d?host=geo.example.test&query=4%2C6", "10.2.0.9");
  EXPECT_EQ(both["ips"], json({"203.0.113.2"}));
  EXPECT_EQ(both["ipsv6"], json({"2001:db8:2::1"}));
}

TEST_F(Http, AliasesAndNegativesAreWhatUdpSays) {
  EXPECT_EQ(body("/1001/d?host=alias.example.test")["ips"], json({"192.0.2.80", "192.0.2.81"}));
  EXPECT_EQ(body("/1001/d?host=alias.example.test")["ttl"], 60) << "the least along the way";
  const json absent = body("/1001/d?host=nowhere.example.test");
  EXPECT_EQ(absent["ips"], json::array());
  EXPECT_EQ(absent["ttl"], 60) << "the negative answer's";
}

TEST_F(Http, ASignatureOpensTheSignedInterface) {
  const auto target = [](uint64_t expiry_s, const std::string& secret) {
    const std::string t = std::to_string(expiry_s);
    return "/1002/sign_d?host=geo.example.test&t=" + t + "&s=" + httpdns_signature("geo.example.test", secret, t);
  };
  EXPECT_EQ(get(target(kNowS + 300, "IAmASecret")).error, HttpDnsError::none);
  EXPECT_EQ(get(target(kNowS + 300, "IAmASecret") + "&ip=10.2.0.1").error, HttpDnsError::none) << "ip is not signed";
  EXPECT_EQ(get(target(kNowS + 300, "wrong")).error, HttpDnsError::invalid_signature);
  EXPECT_EQ(get(target(kNowS - 1, "IAmASecret")).error, HttpDnsError::signature_expired);
  EXPECT_EQ(get(target(kNowS + 86'400, "IAmASecret")).error, HttpDnsError::none);
  EXPECT_EQ(get(target(kNowS + 86'401, "IAmASecret")).error, HttpDnsError::invalid_duration);
  EXPECT_EQ(get("/1002/sign_d?host=geo.example.test&t=soon&s=x").error, HttpDnsError::invalid_duration);
  EXPECT_EQ(get("/1002/sign_d?host=geo.example.test").error, HttpDnsError::missing_argument);
}

TEST_F(Http, ABatchHoldsHostsOrClients) {
  const json hosts = body("/1001/resolve?host=geo.example.test,www.example.test&query=4,6");
  ASSERT_EQ(hosts["dns"].size(), 4U);
  EXPECT_EQ(
      hosts["dns"][0],
      json::parse(
          R"({"host":"geo.example.test","client_ip":"10.1.0.9","ips":["203.0.113.1"],"type":1,"ttl":5,"origin_ttl":5})"));
  EXPECT_EQ(hosts["dns"][1]["type"], 28);
  EXPECT_EQ(hosts["dns"][3]["ips"], json({"2001:db8::80"}));
  const json clients = body("/1001/resolve?host=geo.example.test&ip=10.1.0.1,10.2.0.1");
  EXPECT_EQ(clients["dns"][0]["ips"], json({"203.0.113.1"}));
  EXPECT_EQ(clients["dns"][1]["ips"], json({"203.0.113.2"}));
  EXPECT_EQ(get("/1001/resolve?host=a.example.test,b.example.test&ip=10.1.0.1,10.2.0.1").error,
            HttpDnsError::too_many_hosts);
  EXPECT_EQ(get("/1001/resolve?host=a.example.test,b.example.test,c.example.test,d.example.test,e.example.test").error,
            HttpDnsError::none);
  EXPECT_EQ(get("/1001/resolve?host=a.b,b.b,c.b,d.b,e.b,f.b").error, HttpDnsError::too_many_hosts);
  const std::string t = std::to_string(kNowS + 60);
  const std::string list = "geo.example.test,www.example.test";
  EXPECT_EQ(get("/1002/sign_resolve?host=geo.example.test%2Cwww.example.test&t=" + t +
                "&s=" + httpdns_signature(list, "IAmASecret", t))
                .error,
            HttpDnsError::none)
      << "signed over the decoded list";
}

TEST_F(Http, EveryRefusalHasItsCodeAndStatus) {
  const auto refusal = [&](const std::string& target, const std::string& method = "GET") {
    const HttpDnsAnswer answer = get(target, "10.1.0.9", method);
    EXPECT_EQ(json::parse(answer.body)["code"], info(answer.error).code);
    return std::pair(info(answer.error).status, std::string(info(answer.error).code));
  };
  EXPECT_EQ(refusal("/1001/d"), std::pair(400, std::string("MissingArgument")));
  EXPECT_EQ(refusal("/1001/d?host="), std::pair(400, std::string("MissingArgument")));
  EXPECT_EQ(refusal("/1001/d?host=a%22b.example.test"), std::pair(400, std::string("InvalidHost")));
  EXPECT_EQ(refusal("/1001/d?host=a..b"), std::pair(400, std::string("InvalidHost")));
  EXPECT_EQ(refusal("/1001/d?host=www.elsewhere.test"), std::pair(400, std::string("InvalidHost")));
  EXPECT_EQ(refusal("/1001/d?host=geo.example.test&ip=nonsense"), std::pair(400, std::string("MissingArgument")));
  EXPECT_EQ(refusal("/1001/d?host=geo.example.test", "POST"), std::pair(405, std::string("MethodNotAllowed")));
  EXPECT_EQ(refusal("/1002/d?host=geo.example.test"), std::pair(403, std::string("UnsignedInterfaceDisabled")));
  EXPECT_EQ(refusal("/9999/d?host=geo.example.test"), std::pair(403, std::string("AccountNotExists")));
  EXPECT_EQ(refusal("//d?host=geo.example.test"), std::pair(403, std::string("InvalidAccount")));
  EXPECT_FALSE(parse_httpdns_path("/"));
  EXPECT_FALSE(parse_httpdns_path("/1001"));
  EXPECT_FALSE(parse_httpdns_path("/1001/other"));
}

TEST_F(Http, ABatchOfTheFirstFormLeavesOutWhatIsNotOurs) {
  const json told = body("/1001/resolve?host=www.elsewhere.test,geo.example.test");
  ASSERT_EQ(told["dns"].size(), 1U);
  EXPECT_EQ(told["dns"][0]["host"], "geo.example.test");
  EXPECT_EQ(get("/1001/resolve?host=www.elsewhere.test,other.test").error, HttpDnsError::invalid_host);
  EXPECT_EQ(get("/1001/resolve?host=geo.example.test,a..b").error, HttpDnsError::invalid_host) << "no host at all";
}

TEST_F(Http, AHostThatCannotBeAnsweredNowDoesNotFailABatch) {
  const uint32_t pool = edge_.add_pool("down", {{"b", "10.9.0.1"}}, true);
  edge_.add_steer("closed.example.test.", SteerPolicy::failover, {to_pool(pool)}).all_down = AllDown::closed;
  edge_.live_state().health[backend_key("down", "b")] = {false, "refused", 0};
  const json told = body("/1001/resolve?host=closed.example.test,geo.example.test");
  ASSERT_EQ(told["dns"].size(), 1U) << told;
  EXPECT_EQ(told["dns"][0]["host"], "geo.example.test");
  EXPECT_EQ(get("/1001/resolve?host=closed.example.test").error, HttpDnsError::internal_error);
  const json second = json::parse(get_v2("id=1001&dn=closed.example.test,geo.example.test").body);
  EXPECT_EQ(second["data"]["answers"][0]["v4"]["no_ip_code"], "ServerFailure");
  EXPECT_EQ(second["data"]["answers"][1]["v4"]["ips"], json({"203.0.113.1"}));
}

TEST_F(Http, EveryOneOfAnAccountsSecretsOpensIt) {
  const std::string t = std::to_string(kNowS + 60);
  const auto error_of = [&](const std::string& secret) {
    return get("/1002/sign_d?host=geo.example.test&t=" + t + "&s=" + httpdns_signature("geo.example.test", secret, t))
        .error;
  };
  EXPECT_EQ(error_of("IAmASecret"), HttpDnsError::none);
  EXPECT_EQ(error_of("TheNextSecret"), HttpDnsError::none);
  EXPECT_EQ(error_of("ThePreviousSecret"), HttpDnsError::invalid_signature);
  EXPECT_EQ(get_v2(signed_v2("id=1003&dn=geo.example.test", "ffeeddccbbaa99887766554433221100")).error,
            HttpDnsError::none);
  EXPECT_EQ(get_v2(signed_v2("id=1003&dn=geo.example.test", "00")).error, HttpDnsError::invalid_signature);
}

// An HMAC-SHA256 made by another program, over the parameters sorted by name.
TEST(HttpDnsV2, SignsAsItsDescriptionSays) {
  EXPECT_EQ(
      httpdns_v2_signature("id=1003&m=0&dn=geo.example.test&q=4%2C6&cip=10.2.0.1&sdns-kind=x&tags=&v=1.0&platform=y"
                           "&exp=1700000300",
                           kSecret),
      "cfe3cd929c973105a0ab3a548557e0f2744aa27a6d69abd90949d1596426c70f");
}

TEST_F(Http, TheSecondFormAnswersSeveralHostsInBothFamilies) {
  const HttpDnsAnswer answer = get_v2("id=1001&m=0&dn=geo.example.test%2Cns1.example.test&q=4%2C6&cip=10.2.0.1");
  EXPECT_EQ(json::parse(answer.body), json::parse(R"({"code":"success","mode":"0","data":{"cip":"10.2.0.1","answers":[
    {"dn":"geo.example.test","v4":{"ips":["203.0.113.2"],"ttl":5,"extra":""},"v6":{"ips":["2001:db8:2::1"],"ttl":5,"extra":""}},
    {"dn":"ns1.example.test","v4":{"ips":["192.0.2.53"],"ttl":300,"extra":""},"v6":{"ips":["2001:db8::53"],"ttl":300,"extra":""}}]}})"));
  const json own = json::parse(get_v2("id=1001&dn=geo.example.test").body);
  EXPECT_EQ(own["data"]["cip"], "10.1.0.9") << "the sender's";
  EXPECT_EQ(own["data"]["answers"][0]["v4"]["ips"], json({"203.0.113.1"}));
  EXPECT_FALSE(own["data"]["answers"][0].contains("v6")) << "IPv4 is the default";
}

TEST_F(Http, OneHostWithoutAnAddressDoesNotFailTheOthers) {
  const json told = json::parse(
      get_v2("id=1001&dn=geo.example.test,www.elsewhere.test,nowhere.example.test,srv.example.test&q=4").body);
  const json& answers = told["data"]["answers"];
  ASSERT_EQ(answers.size(), 4U);
  EXPECT_FALSE(answers[0]["v4"].contains("no_ip_code"));
  EXPECT_EQ(answers[1]["v4"]["no_ip_code"], "DomainNotExist");
  EXPECT_EQ(answers[2]["v4"]["no_ip_code"], "DomainNotExist");
  EXPECT_EQ(answers[2]["v4"]["ttl"], 60) << "the negative answer's";
  EXPECT_EQ(answers[3]["v4"]["no_ip_code"], "RRNotExist");
  EXPECT_EQ(answers[3]["v4"]["ips"], json::array());
}

TEST_F(Http, SealedParametersAreOpenedAndTheAnswerIsSealedAlike) {
  const std::string key = *hex_decode(kAesKey);
  for (const auto& [mode, digit] : {std::pair(AesMode::cbc, "1"), std::pair(AesMode::gcm, "2")}) {
    const std::string sealed =
        hex_encode(aes128_seal(mode, key, R"({"dn":"geo.example.test","q":"4","cip":"10.2.0.1","sdns-a":"b"})"));
    const json told = json::parse(get_v2(signed_v2("id=1003&m=" + std::string(digit) + "&enc=" + sealed)).body);
    EXPECT_EQ(told["code"], "success");
    EXPECT_EQ(told["mode"], digit);
    std::string base64 = told["data"];
    std::replace(base64.begin(), base64.end(), '+', '-');
    std::replace(base64.begin(), base64.end(), '/', '_');
    base64.erase(base64.find_last_not_of('=') + 1);
    const auto opened = aes128_open(mode, key, *base64url_decode(base64));
    ASSERT_TRUE(opened);
    EXPECT_EQ(json::parse(*opened)["answers"][0]["v4"]["ips"], json({"203.0.113.2"}));
  }
}

TEST_F(Http, EveryRefusalOfTheSecondFormHasItsCode) {
  const auto code_of = [&](const std::string& query, const std::string& method = "GET") {
    const HttpDnsAnswer answer = get_v2(query, "10.1.0.9", method);
    const std::string code = json::parse(answer.body)["code"];
    EXPECT_EQ(code, answer.error == HttpDnsError::none ? "success" : info(answer.error).code);
    return code;
  };
  const std::string key = *hex_decode(kAesKey);
  const auto sealed = [&](const std::string& plain) { return hex_encode(aes128_seal(AesMode::gcm, key, plain)); };
  EXPECT_EQ(code_of("id=1001&dn=geo.example.test", "POST"), "MethodNotAllowed");
  EXPECT_EQ(code_of("dn=geo.example.test"), "MissingArgument");
  EXPECT_EQ(code_of("id=1001"), "MissingArgument");
  EXPECT_EQ(code_of("id=%22&dn=a.test"), "InvalidAccount");
  EXPECT_EQ(code_of("id=9999&dn=geo.example.test"), "AccountNotExists");
  EXPECT_EQ(code_of("id=1003&dn=geo.example.test"), "UnsignedInterfaceDisabled");
  EXPECT_EQ(code_of("id=1003&dn=geo.example.test&s=00"), "MissingArgument") << "exp";
  EXPECT_EQ(code_of("id=1003&dn=geo.example.test&s=00&exp=1"), "SignatureExpired");
  EXPECT_EQ(code_of("id=1003&dn=geo.example.test&s=00&exp=9999999999"), "InvalidDuration");
  EXPECT_EQ(code_of("id=1003&dn=geo.example.test&s=00&exp=" + std::to_string(kNowS)), "InvalidSignature");
  EXPECT_EQ(code_of(signed_v2("id=1003&dn=geo.example.test&cip=10.1.0.1") + "&sdns-late=x"), "InvalidSignature");
  EXPECT_EQ(code_of(signed_v2("id=1003&dn=geo.example.test") + "&platform=x"), "success") << "not among what is signed";
  EXPECT_EQ(code_of("id=1001&m=3&dn=geo.example.test"), "InvalidMode");
  EXPECT_EQ(code_of("id=1001&m=2&enc=" + sealed(R"({"dn":"geo.example.test"})")), "InvalidMode")
      << "an account without a key";
  EXPECT_EQ(code_of(signed_v2("id=1003&m=2")), "MissingArgument");
  EXPECT_EQ(code_of(signed_v2("id=1003&m=2&dn=geo.example.test")), "MissingArgument")
      << "nothing beside what is sealed";
  EXPECT_EQ(code_of(signed_v2("id=1003&m=2&enc=zz")), "DecryptionFailed");
  EXPECT_EQ(code_of(signed_v2("id=1003&m=1&enc=" + sealed("{}"))), "DecryptionFailed");
  EXPECT_EQ(code_of(signed_v2("id=1003&m=2&enc=" + sealed("[]"))), "DecryptionFailed");
  EXPECT_EQ(code_of(signed_v2("id=1003&m=2&enc=" + sealed("{}"))), "MissingArgument");
  EXPECT_EQ(code_of("id=1001&dn=geo.example.test&cip=nonsense"), "InvalidClientIp");
  EXPECT_EQ(code_of("id=1001&dn=a..b"), "InvalidHost");
  EXPECT_EQ(code_of("id=1001&dn=a%22.test"), "InvalidHost");
  EXPECT_EQ(code_of("id=1001&dn=a.test,b.test,c.test,d.test,e.test,f.test"), "TooManyHosts");
}

TEST(HttpDnsParameters, AreDecodedSortedAndEachOnce) {
  std::string shown;
  const Parameters parameters = parse_parameters("z=1&&a=%41+b&z=2&m&=e&%61=x&bad=%4&b+c=1&last=");
  for (const auto& [name, value] : parameters) {
    shown += name + "=" + value + ";";
  }
  EXPECT_EQ(shown, "=e;a=A b;last=;m=;z=1;");
  std::string many;
  for (int i = 0; i < 100; ++i) many += "p" + std::to_string(i) + "=" + std::to_string(i) + "&";
  EXPECT_EQ(parse_parameters(many).size(), kMaxHttpDnsParameters);
  const Parameters bounded = parse_parameters(many);
  EXPECT_EQ(value_of(bounded, "p63"), "63");
  EXPECT_EQ(bounded.find("p64"), nullptr);
}

TEST(FlatJson, ReadsMembersAndNothingDeeper) {
  const auto members = parse_flat_json(R"( {"dn" : "a.test,b.test", "n":-1.5e3,"t":true, "e":"\"\\\/\u0041"} )");
  ASSERT_TRUE(members);
  EXPECT_EQ(value_of(*members, "dn"), "a.test,b.test");
  EXPECT_EQ(value_of(*members, "n"), "-1.5e3");
  EXPECT_EQ(value_of(*members, "t"), "true");
  EXPECT_EQ(value_of(*members, "e"), "\"\\/A");
  EXPECT_TRUE(parse_flat_json("{}"));
  const auto bent = parse_flat_json(R"({"b":"x\"y\/","a":"\\"})");
  ASSERT_TRUE(bent);
  EXPECT_EQ(value_of(*bent, "a"), "\\");
  EXPECT_EQ(value_of(*bent, "b"), "x\"y/");
  for (const char* text :
       {"", "{", "[]", "{}x", R"({"a":{}})", R"({"a":[1]})", R"({"a":1,})", R"({"a":1,"a":2})", R"({"a":"\u00e9"})",
        R"({"a":"\n"})", "{\"a\":\"\n\"}", R"({"a")", R"({"a":})", R"({"a":"b)", R"({a:1})"}) {
    EXPECT_FALSE(parse_flat_json(text)) << text;
  }
}

TEST_F(Http, AClientLearnsWhereToAskFromWhatIsUp) {
  EXPECT_EQ(get("/1001/ss").error, HttpDnsError::service_not_configured);
  edge_.model().httpdns_service = {0, 1};
  edge_.changed();
  const json eu =
      json::parse(R"({"service_ip":["203.0.113.1","203.0.113.2"],"service_ipv6":["2001:db8:1::1","2001:db8:2::1"]})");
  EXPECT_EQ(body("/1001/ss"), eu) << "the nearest first";
  EXPECT_EQ(body("/1001/ss", "10.2.0.9")["service_ip"], json({"203.0.113.2", "203.0.113.1"}));
  EXPECT_EQ(body("/1001/ss?region=us")["service_ip"], json({"203.0.113.2", "203.0.113.1"})) << "a region that it names";
  EXPECT_EQ(body("/1001/ss?region=cn"), eu);
  edge_.drain_site("eu");
  EXPECT_EQ(body("/1001/ss")["service_ip"], json({"203.0.113.2"})) << "a drained site is left out";
  edge_.drain_site("us");
  EXPECT_EQ(body("/1001/ss"), eu) << "nobody is left without a server";
  // The signature covers its nonce.
  const std::string t = std::to_string(kNowS + 60);
  EXPECT_EQ(get("/1002/ss?n=abc&t=" + t + "&s=" + httpdns_signature("abc", "IAmASecret", t)).error, HttpDnsError::none);
  EXPECT_EQ(get("/1002/ss?n=abd&t=" + t + "&s=" + httpdns_signature("abc", "IAmASecret", t)).error,
            HttpDnsError::invalid_signature);
  EXPECT_EQ(get("/1002/ss").error, HttpDnsError::missing_argument);
  EXPECT_EQ(get("/9999/ss").error, HttpDnsError::account_not_exists);
}

TEST_F(Http, DohGivesTheAnswerByGetAndByPost) {
  const auto query = make_query("geo.example.test", rrtype::kA, std::nullopt, 0);
  const std::string wire(query.begin(), query.end());
  for (const HttpResponse& response : {doh("GET", "dns=" + base64url_encode(wire)), doh("POST", "", wire)}) {
    EXPECT_EQ(response.status, 200);
    const Answer answer = read_answer({response.body.begin(), response.body.end()});
    ASSERT_TRUE(answer);
    EXPECT_THAT(answer.addresses(), ElementsAre("203.0.113.2"));
    EXPECT_THAT(response.headers,
                ::testing::Contains(std::pair<std::string, std::string>("Cache-Control", "max-age=5, private")));
    EXPECT_THAT(response.headers,
                ::testing::Contains(::testing::Pair(::testing::StrCaseEq("content-type"), "application/dns-message")));
  }
}

TEST_F(Http, ASharedCacheMayKeepOnlyWhatIsTheSameForAll) {
  const auto cache_control = [this](const char* name, const std::optional<Edns>& edns = std::nullopt) {
    const auto query = make_query(name, rrtype::kA, edns, 0);
    const HttpResponse response = doh("GET", "dns=" + base64url_encode(std::string(query.begin(), query.end())));
    for (const auto& [field, value] : response.headers) {
      if (field == "Cache-Control") return value;
    }
    return std::string();
  };
  edge_.add_steer("nowhere.example.test.", SteerPolicy::nearest, {to_vip(0), to_vip(1)}).ttl_s = 5;
  EXPECT_EQ(cache_control("mail.example.test"), "max-age=300, s-maxage=1");
  EXPECT_EQ(cache_control("mail.example.test", Edns{.options = {{10, "12345678"}}}), "max-age=300, private");
  EXPECT_EQ(cache_control("geo.example.test"), "max-age=5, private");
  EXPECT_EQ(cache_control("dangling.example.test"), "max-age=5, private") << "an alias to a steered name";
}

TEST_F(Http, BrokenDohIsRefusedByStatus) {
  EXPECT_EQ(doh("GET", "").status, 400);
  EXPECT_EQ(doh("GET", "dns=%%%").status, 400);
  EXPECT_EQ(doh("GET", "dns=AAA=").status, 400);
  EXPECT_EQ(doh("GET", "dns=AAAA").status, 400) << "too short for a header";
  EXPECT_EQ(doh("PUT", "").status, 405);
  EXPECT_EQ(doh("POST", "", "x", "text/plain").status, 415);
  EXPECT_EQ(doh("POST", "", "x", "").status, 415);
  EXPECT_EQ(doh("POST", "", std::string(kMaxMessageBytes + 1, 'x')).status, 413);
}

TEST_F(Http, FreshnessIsTheLeastTtl) {
  const auto freshness = [&](const std::string& name, uint16_t type) {
    return freshness_s(edge_.ask_wire(make_query(name, type), "10.1.0.1", QueryTransport::tcp));
  };
  EXPECT_EQ(freshness("alias.example.test", rrtype::kA), 60U);
  EXPECT_EQ(freshness("example.test", rrtype::kMx), 300U);
  EXPECT_EQ(freshness("nowhere.example.test", rrtype::kA), 60U);
  EXPECT_EQ(freshness("www.elsewhere.test", rrtype::kA), 0U);
}

TEST(ClientAddress, OnlyTrustedHopsAreBelieved) {
  const std::vector<Cidr> trusted{*Cidr::parse("10.10.0.0/24"), *Cidr::parse("fd10::/64")};
  const auto client = [&](const std::string& peer, std::vector<std::string> fields) {
    HttpRequest request;
    request.peer = Endpoint{*IpAddress::parse(peer), 1};
    for (std::string& field : fields) request.headers.emplace_back("x-forwarded-for", std::move(field));
    return client_address(request, trusted).to_string();
  };
  EXPECT_EQ(client("10.10.0.11", {"10.2.0.2"}), "10.2.0.2");
  EXPECT_EQ(client("10.9.0.1", {"10.2.0.2"}), "10.9.0.1") << "a peer that we do not know cannot say who its client is";
  EXPECT_EQ(client("10.10.0.11", {}), "10.10.0.11");
  EXPECT_EQ(client("10.10.0.11", {"6.6.6.6, 10.2.0.2, 10.10.0.12"}), "10.2.0.2")
      << "what stands left of the client is its own claim";
  EXPECT_EQ(client("10.10.0.11", {"6.6.6.6", "10.2.0.2"}), "10.2.0.2") << "the last field is the nearest hop's";
  EXPECT_EQ(client("10.10.0.11", {"6.6.6.6, unknown"}), "10.10.0.11");
  EXPECT_EQ(client("10.10.0.11", {"6.6.6.6, 10.2.0.2:51234"}), "10.2.0.2");
  EXPECT_EQ(client("10.10.0.11", {"6.6.6.6, [fd02::2]:443"}), "fd02::2");
  EXPECT_EQ(client("10.10.0.11", {"6.6.6.6,"}), "10.10.0.11");
  EXPECT_EQ(client("fd10::11", {" fd02::2\t"}), "fd02::2");
  EXPECT_EQ(client("::ffff:10.10.0.11", {"::ffff:10.2.0.2"}), "10.2.0.2");
}

}  // namespace tidegate::dns::test::http_test
