// SPDX-License-Identifier: Apache-2.0
// The same client gets the same addresses in the same order by every way: UDP with and without a client subnet, TCP,
// DoH and every form of HTTPDNS.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>

#include "conf/model.h"
#include "conf/model/httpdns.h"
#include "conf/model/steer.h"
#include "core/aes.h"
#include "core/crypto.h"
#include "dns/httpdns/alibaba_v1.h"
#include "dns/httpdns/alibaba_v2.h"
#include "dns/httpdns/dnspod.h"
#include "dns/server/doh.h"
#include "tests/unit/dns/support.h"

namespace tidegate::dns::test::doors_test {

using nlohmann::json;

constexpr char kAesKey[] = "000102030405060708090a0b0c0d0e0f";
constexpr char kResolver[] = "192.0.2.250";  // a client itself, when no subnet names another one
constexpr const char* kNames[] = {"near.example.test", "weighted.example.test", "rank.example.test",
                                  "x.any.example.test"};

using Addresses = std::vector<std::string>;

// Two sites with several VIPs each, so that every policy has something to draw.
class Doors : public ::testing::Test {
 protected:
  Doors() {
    edge_.add_zone("example.test.", kZone);
    const uint32_t sites[] = {edge_.add_site("eu", 50.11, 8.68), edge_.add_site("us", 40.71, -74.0)};
    std::vector<SteerTarget> vips;
    for (uint32_t i = 0; i < 8; ++i) {
      const uint32_t vip = edge_.add_vip(fmt::format("vip{}", i), sites[i % 2], {fmt::format("203.0.113.{}", i + 1)});
      vips.push_back(to_vip(vip, 50 + 25 * i));
    }
    edge_.add_network("10.0.0.0/9", sites[0]);
    edge_.model().geo.default_site = sites[1];
    const uint32_t pool = edge_.add_pool(
        "pool", {{"a", "10.8.0.1"}, {"b", "10.8.0.2"}, {"c", "10.8.0.3"}, {"d", "10.8.0.4"}, {"e", "10.8.0.5"}}, false);
    edge_.add_steer("near.example.test.", SteerPolicy::nearest, vips);
    edge_.add_steer("weighted.example.test.", SteerPolicy::weighted, vips);
    edge_.add_steer("rank.example.test.", SteerPolicy::failover, {to_pool(pool), to_vip(0)});
    edge_.add_steer("*.any.example.test.", SteerPolicy::nearest, vips);
    edge_.model().httpdns_accounts = {{"1", "secret", true, {}, kAesKey}};
    edge_.worker().now_s = 1'700'000'000;
  }

  void compare(uint32_t clients);

  static std::string client(uint32_t number) {
    return fmt::format("{}.{}.{}.{}", number % 3 == 0 ? 10 : 172, number >> 8 & 255, number & 255, 1 + number % 200);
  }
  static Addresses in_order(const Answer& answer) {
    Addresses out;
    for (const std::string& record : answer.answers()) out.push_back(record.substr(record.rfind(' ') + 1));
    return out;
  }
  Addresses by_udp(const std::string& name, const std::string& from) {
    return in_order(edge_.ask(name, rrtype::kA, from));
  }
  Addresses by_subnet(const std::string& name, const std::string& from) {
    const std::string network = from.substr(0, from.rfind('.')) + ".0/24";
    return in_order(edge_.ask(name, rrtype::kA, kResolver, Edns{.options = {subnet_option(network)}}));
  }
  Addresses by_tcp(const std::string& name, const std::string& from) {
    return in_order(read_answer(edge_.ask_wire(make_query(name, rrtype::kA), from, QueryTransport::tcp)));
  }
  Addresses by_doh(const std::string& name, const std::string& from) {
    const auto query = make_query(name, rrtype::kA);
    HttpRequest request;
    request.method = "GET";
    request.query = "dns=" + base64url_encode({reinterpret_cast<const char*>(query.data()), query.size()});
    const HttpResponse response = answer_doh(request, http_client(from), edge_.tables(), edge_.worker(), scratch_);
    return in_order(read_answer({response.body.begin(), response.body.end()}));
  }
  json v1(const std::string& target, const std::string& from) {
    HttpRequest request;
    request.method = "GET";
    request.path = target.substr(0, target.find('?'));
    request.query = target.substr(target.find('?') + 1);
    const Client asker = http_client(from);
    return json::parse(answer_httpdns(*parse_httpdns_path(request.path), request, context(asker)).body);
  }
  Addresses by_v1(const std::string& name, const std::string& from) { return v1("/1/d?host=" + name, from)["ips"]; }
  Addresses by_v1_for_another(const std::string& name, const std::string& from) {
    return v1("/1/d?host=" + name + "&ip=" + from, kResolver)["ips"];
  }
  Addresses by_v1_batch(const std::string& name, const std::string& from) {
    return v1("/1/resolve?host=ns1.example.test," + name, from)["dns"][1]["ips"];
  }
  json v2(const std::string& query, const std::string& from) {
    HttpRequest request;
    request.method = "GET";
    request.path = kHttpDnsV2Path;
    request.query = query;
    const Client asker = http_client(from);
    return json::parse(answer_httpdns_v2(request, context(asker)).body);
  }
  Addresses by_v2(const std::string& name, const std::string& from) {
    return v2("id=1&dn=" + name, from)["data"]["answers"][0]["v4"]["ips"];
  }
  Addresses by_v2_sealed(const std::string& name, const std::string& from) {
    const std::string key = *hex_decode(kAesKey);
    const std::string plain = fmt::format(R"({{"dn":"{}","cip":"{}"}})", name, from);
    const json told = v2("id=1&m=2&enc=" + hex_encode(aes128_seal(AesMode::gcm, key, plain)), kResolver);
    const auto opened = aes128_open(AesMode::gcm, key, base64_bytes(told["data"]));
    return json::parse(*opened)["answers"][0]["v4"]["ips"];
  }
  static std::string base64_bytes(std::string text) {
    for (char& c : text) c = c == '+' ? '-' : c == '/' ? '_' : c;
    text.erase(text.find_last_not_of('=') + 1);
    return *base64url_decode(text);
  }
  HttpDnsContext context(const Client& asker) {
    return {asker, edge_.tables(), edge_.worker(), scratch_, edge_.worker().now_s};
  }
  Addresses by_dnspod(const std::string& name, const std::string& from) {
    HttpRequest request;
    request.method = "GET";
    request.path = kDnspodPath;
    request.query = "id=1&dn=" + name;
    const Client asker = http_client(from);
    const std::string body = answer_dnspod(request, context(asker)).body;
    Addresses out;
    for (size_t start = 0; start < body.size();) {
      const size_t end = std::min(body.find(';', start), body.size());
      out.push_back(body.substr(start, end - start));
      start = end + 1;
    }
    return out;
  }
  static Client http_client(const std::string& from) { return {*IpAddress::parse(from), QueryTransport::http}; }

  using Door = Addresses (Doors::*)(const std::string&, const std::string&);
  static constexpr std::pair<const char*, Door> kDoors[] = {
      {"a client subnet", &Doors::by_subnet},
      {"TCP", &Doors::by_tcp},
      {"DoH", &Doors::by_doh},
      {"HTTPDNS d", &Doors::by_v1},
      {"HTTPDNS d?ip=", &Doors::by_v1_for_another},
      {"HTTPDNS resolve", &Doors::by_v1_batch},
      {"HTTPDNS v2", &Doors::by_v2},
      {"HTTPDNS v2 sealed", &Doors::by_v2_sealed},
      {"DNSPod", &Doors::by_dnspod},
  };

  Edge edge_;
  std::vector<uint8_t> scratch_ = std::vector<uint8_t>(kMaxMessageBytes);
};

// Each client asks by UDP and by one other way, and one in fifty by all of them. The number of clients is a parameter.
void Doors::compare(uint32_t clients) {
  constexpr size_t kDoorCount = std::size(kDoors);
  std::set<Addresses> answers;
  for (uint32_t number = 0; number < clients; ++number) {
    const std::string name = kNames[number % std::size(kNames)], from = client(number);
    edge_.worker().now_s += number % 2;
    const Addresses udp = by_udp(name, from);
    answers.insert(udp);
    for (size_t door = 0; door < kDoorCount; ++door) {
      if (number % 50 != 0 && door != number / std::size(kNames) % kDoorCount) continue;
      ASSERT_EQ((this->*kDoors[door].second)(name, from), udp) << kDoors[door].first << ' ' << name << ' ' << from;
    }
  }
  EXPECT_GT(answers.size(), 100U) << "the clients spread";
}

TEST_F(Doors, AllGiveOneClientTheSameAddressesInTheSameOrder) { compare(500); }

using LongDoors = Doors;
TEST_F(LongDoors, AllGiveTenThousandClientsTheSameAddressesInTheSameOrder) { compare(10'000); }

}  // namespace tidegate::dns::test::doors_test
