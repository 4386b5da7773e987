// SPDX-License-Identifier: Apache-2.0
// The answer function of the DNS plane, from bytes to bytes.
#include <benchmark/benchmark.h>

#include <array>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "conf/model.h"
#include "conf/model/node.h"
#include "conf/model/site.h"
#include "conf/model/steer.h"
#include "conf/model/zone.h"
#include "core/crypto.h"
#include "dns/query/query.h"

namespace tidegate::dns {
namespace {

std::shared_ptr<const Tables> tables_of(int64_t hosts) {
  std::string text =
      "$ORIGIN example.test.\n$TTL 300\n@ IN SOA ns1 hostmaster 1 3600 600 604800 60\n@ IN NS ns1\n"
      "ns1 IN A 192.0.2.1\n";
  for (int64_t i = 0; i < hosts; ++i) text += "h" + std::to_string(i) + " IN A 192.0.2.80\n";
  auto model = std::make_shared<Model>();
  tidegate::Zone zone;
  zone.name = "example.test.";
  zone.file = {"example.test.zone", sha256_hex(text), std::make_shared<const std::string>(text)};
  model->zones.push_back(zone);
  Steer steer;
  steer.name = "www.example.test.";
  for (uint32_t site = 0; site < 4; ++site) {
    const std::string number = std::to_string(site);
    model->sites.push_back({"s" + number, {10.0 * site, 20.0 * site}});
    model->vips.push_back({"v" + number, site, {*IpAddress::parse("192.0.2.10" + number)}});
    steer.targets.emplace_back().what = TargetVip{site};
  }
  model->steers.push_back(steer);
  Steer several;  // eight targets of one site, of which four are drawn
  several.name = "several.example.test.";
  for (uint32_t i = 0; i < 8; ++i) {
    several.targets.emplace_back().what = TargetVip{static_cast<uint32_t>(model->vips.size())};
    model->vips.push_back({"w" + std::to_string(i), 0, {*IpAddress::parse("192.0.2.20" + std::to_string(i))}});
  }
  model->steers.push_back(several);
  for (uint32_t i = 0; i < 200; ++i) {
    model->geo.networks.push_back({*Cidr::parse("10." + std::to_string(i) + ".0.0/24"), i % 4, std::nullopt});
  }
  model->geo.default_site = 0;
  Node node;
  node.dns.enabled = true;
  return *build_tables(make_snapshot(1, "digest", model, std::make_shared<const LiveState>()), node, nullptr);
}

std::vector<uint8_t> question(std::string_view name, bool with_subnet) {
  std::vector<uint8_t> out{0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, static_cast<uint8_t>(with_subnet)};
  for (size_t start = 0; start < name.size();) {
    const size_t end = std::min(name.find('.', start), name.size());
    out.push_back(static_cast<uint8_t>(end - start));
    out.insert(out.end(), name.begin() + static_cast<ptrdiff_t>(start), name.begin() + static_cast<ptrdiff_t>(end));
    start = end + 1;
  }
  out.insert(out.end(), {0, 0, 1, 0, 1});
  // OPT of 1232 bytes with the client subnet 10.7.0.0/24 (RFC 7871 §6).
  if (with_subnet) out.insert(out.end(), {0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 11, 0, 8, 0, 7, 0, 1, 24, 0, 10, 7, 0});
  return out;
}

void dns_answer(benchmark::State& state, std::string_view name, bool with_subnet, int rcode) {
  const std::shared_ptr<const Tables> tables = tables_of(state.range(0));
  const std::vector<uint8_t> query = question(name, with_subnet);
  Worker worker(HashKey{1, 2});
  const Client client{*IpAddress::parse("198.51.100.1"), QueryTransport::udp};
  std::array<uint8_t, 4'096> out;
  for (auto _ : state) {
    if (answer(query, out, client, *tables, worker) == 0 || (out[3] & 15) != rcode) state.SkipWithError("wrong answer");
  }
}
BENCHMARK_CAPTURE(dns_answer, of_a_zone, "h7.example.test", false, 0)->Arg(1'000)->Arg(100'000);
BENCHMARK_CAPTURE(dns_answer, name_error, "absent.example.test", false, 3)->Arg(1'000)->Arg(100'000);
BENCHMARK_CAPTURE(dns_answer, steered, "www.example.test", false, 0)->Arg(1'000);
BENCHMARK_CAPTURE(dns_answer, drawn_among_several, "several.example.test", false, 0)->Arg(1'000);
BENCHMARK_CAPTURE(dns_answer, steered_by_client_subnet, "www.example.test", true, 0)->Arg(1'000);

void steer_alone(benchmark::State& state) {
  const std::shared_ptr<const Tables> tables = tables_of(10);
  const Authority& authority = *tables->authority;
  const IpAddress client = *IpAddress::parse("10.7.0.9");
  const Name name = *Name::from_text("www.example.test");
  const DrawKey key(name.wire(), client, 1'700'000'000);
  for (auto _ : state) {
    benchmark::DoNotOptimize(choose(steer_context(*tables), authority.steers[0], IpAddress::Family::v4, client, key));
  }
}
BENCHMARK(steer_alone);

}  // namespace
}  // namespace tidegate::dns
