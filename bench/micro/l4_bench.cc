// SPDX-License-Identifier: Apache-2.0
// The forwarder's decisions without a device: parsing, the flow table, a whole burst, a change of tables.
#include <benchmark/benchmark.h>

#include <memory>
#include <string>
#include <vector>

#include "conf/model.h"
#include "conf/model/node.h"
#include "conf/model/pool.h"
#include "conf/model/service.h"
#include "core/clock.h"
#include "l4/conn_table.h"
#include "l4/decider.h"
#include "l4/packet_view.h"
#include "tests/unit/l4/edge.h"
#include "tests/unit/l4/frames.h"

namespace tidegate::l4 {
namespace {

using testing::Bytes;
using testing::Edge;
using testing::ip;
using testing::kFlowKey;
using testing::kOurMac;

constexpr FlowTimeouts kTimeouts{60'000, 60'000, 60'000};

void parse(benchmark::State& state, const Bytes& frame) {
  PacketView view;
  for (auto _ : state) {
    benchmark::DoNotOptimize(parse_frame(frame.data(), frame.size(), view));
    benchmark::DoNotOptimize(view);
  }
}
void parse_tcp_over_ip4(benchmark::State& state) {
  parse(state, testing::tcp_frame("192.0.2.1", 40'000, "10.0.0.100", 80, kTcpAck));
}
void parse_udp_over_ip6(benchmark::State& state) {
  parse(state, testing::udp_frame("2001:db8::1", 40'000, "fd00::100", 53));
}
BENCHMARK(parse_tcp_over_ip4);
BENCHMARK(parse_udp_over_ip6);

// Looks up as the forwarder does, with prefetches one burst ahead.
void flow_hit(benchmark::State& state) {
  const auto flows = static_cast<uint64_t>(state.range(0));
  ConnTable table(flows);
  for (uint64_t i = 0; i < flows; ++i) table.insert(mix64(i + 1), BackendId{1}, 60'000, 0);
  uint64_t next = 0;
  for (auto _ : state) {
    for (uint64_t i = 0; i < kBurst; ++i) table.prefetch(mix64((next + i) % flows + 1));
    for (uint64_t i = 0; i < kBurst; ++i) {
      FlowEntry* entry = table.find(mix64((next + i) % flows + 1), 1);
      if (entry != nullptr) entry->advance(FlowEvent::data, kTimeouts, 1);
    }
    next += kBurst;
  }
  state.SetItemsProcessed(state.iterations() * static_cast<int64_t>(kBurst));
}
BENCHMARK(flow_hit)->Arg(1'000)->Arg(100'000)->Arg(1'000'000);

// Every flow is new, in a table full of young flows: find, evict one, insert.
void flow_miss_in_a_full_table(benchmark::State& state) {
  const auto flows = static_cast<uint64_t>(state.range(0));
  ConnTable table(flows);
  uint64_t next = 0;
  const auto burst = [&] {
    for (uint64_t i = 0; i < kBurst; ++i) table.prefetch(mix64(next + i + 1));
    for (uint64_t i = 0; i < kBurst; ++i, ++next) {
      const uint64_t hash = mix64(next + 1);
      if (table.find(hash, 1) == nullptr) table.insert(hash, BackendId{1}, 60'000, 1);
    }
  };
  while (next < table.capacity() * 2) burst();
  for (auto _ : state) burst();
  state.SetItemsProcessed(state.iterations() * static_cast<int64_t>(kBurst));
}
BENCHMARK(flow_miss_in_a_full_table)->Arg(1'000)->Arg(1'000'000);

struct Crowd {
  Edge edge;
  explicit Crowd(int64_t backends) {
    edge.model.nodes[0].l4.maglev_slots = 65'537;
    edge.model.nodes[0].l4.ports[0].addresses[0].second = 8;  // so that all backends are on the link
    Pool& pool = edge.model.pools[0];
    pool.backends.clear();
    for (int64_t i = 0; i < backends; ++i) {
      Backend backend;
      backend.name = "web" + std::to_string(i);
      const std::string place = std::to_string(i / 250);
      backend.addresses = {ip("10.1." + place + "." + std::to_string(i % 250 + 1)),
                           ip("fd00::1:" + place + ":" + std::to_string(i % 250 + 1))};
      pool.backends.push_back(backend);
    }
  }
};

// Clients of the whole address space, with bit 7 clear.
uint32_t client_of(uint32_t turn) { return (0x01000000u + turn * 2'654'435'761u % 0x7d000000u) & ~0x80u; }

// A list of 100,000 networks that contain no client, and limits that are not reached.
void guard_services(Edge& edge) {
  Acl list;
  list.name = "bad";
  for (uint32_t i = 0; i < 100'000; ++i) {
    const auto network = static_cast<uint32_t>(mix64(i)) | 0x80;
    list.networks.push_back(Cidr::of(IpAddress::v4(htonl(network)), 25));
  }
  edge.model.acls = {list};
  for (Service& service : edge.model.services) {
    service.deny = {0};
    service.limits.packets = service.limits.source_packets = 100'000'000;
    service.limits.source_flows = service.limits.flows = 100'000'000;
  }
}

// A kind of work for whole bursts: the whole decision, without the device.
struct Work {
  Forwarding mode = Forwarding::l2dsr;
  uint8_t family = 4;
  bool udp = false, guarded = false;
  bool flood = false;  // each packet begins a flow
  int64_t backends = 100;
};

Bytes sample_of(const Work& work) {
  const std::string client = work.family == 4 ? "11.0.0.0" : "2001:db8::";
  const std::string vip = work.family == 4 ? "10.0.0.100" : "fd00::100";
  if (work.udp) return testing::udp_frame(client, 40'000, vip, 53, "a datagram of such");
  return testing::tcp_frame(client, 40'000, vip, 80, work.flood ? kTcpSyn : kTcpAck, "123456");
}

// `state.range(0)`: how many clients take turns, and the size of the flow table.
void decide_bursts(benchmark::State& state, const Work& work) {
  constexpr size_t kRoom = 128;  // room before a frame, as in a packet buffer
  const auto flows = static_cast<uint32_t>(state.range(0));
  Crowd crowd(work.backends);
  for (Service& service : crowd.edge.model.services) {
    service.forwarding = work.mode;
    service.vni = work.mode == Forwarding::vxlan ? 1 : 0;
  }
  if (work.guarded) guard_services(crowd.edge);
  const std::shared_ptr<const ForwardingTables> tables = crowd.edge.tables();
  WorkerCounters counters;
  PortIdentity port{kOurMac, crowd.edge.model.nodes[0].l4.ports[0].addresses};
  Decider decider({FlowHasher(kFlowKey), {port}, flows, false, 1, false}, counters);
  decider.adopt(*tables, 0);
  for (const NeighbourTarget& target : tables->neighbours->targets) {
    NeighbourView known;
    known.address = target.address;
    known.mac = {{2, 0, 1, 0, static_cast<uint8_t>(index_of(target.id)), 1}};
    decider.preload(known, 0);
  }
  Frame frames[kBurst];
  FrameOutcome outcomes[kBurst];
  const Bytes sample = sample_of(work);
  const size_t source_at = work.family == 4 ? 26 : 34;  // the last four bytes of the client's address
  Bytes buffer(kRoom);
  testing::append(buffer, sample);
  std::vector<Bytes> burst(kBurst, buffer);
  uint32_t next = 0, now_ms = 1;
  for (auto _ : state) {
    if (next % 16'384 < kBurst) ++now_ms;  // the time at some ten million packets a second
    for (size_t i = 0; i < kBurst; ++i) {
      const uint32_t turn = next++;
      const uint32_t source = htonl(client_of(work.flood ? turn : turn % flows));
      uint8_t* frame = burst[i].data() + kRoom;
      std::memcpy(frame, sample.data(), kEthernetBytes);  // direct return and vxlan have written there
      std::memcpy(frame + source_at, &source, 4);
      const auto bytes = static_cast<uint32_t>(sample.size());
      frames[i] = {frame, bytes, bytes, 0, 0, false, kRoom};
    }
    decider.decide(*tables, frames, outcomes, kBurst, now_ms);
  }
  if (outcomes[0].verdict != FrameVerdict::forward) {
    state.SkipWithError(std::string("not forwarded: ").append(sentence(outcomes[0].reason)).c_str());
  }
  state.SetItemsProcessed(state.iterations() * static_cast<int64_t>(kBurst));
}
void decide_hit(benchmark::State& state) { decide_bursts(state, {}); }
void decide_hit_udp(benchmark::State& state) { decide_bursts(state, {.udp = true}); }
void decide_hit_ip6(benchmark::State& state) { decide_bursts(state, {.family = 6}); }
void decide_hit_udp_ip6(benchmark::State& state) { decide_bursts(state, {.family = 6, .udp = true}); }
void decide_hit_10000_backends(benchmark::State& state) { decide_bursts(state, {.backends = 10'000}); }
void decide_hit_ipip(benchmark::State& state) { decide_bursts(state, {.mode = Forwarding::ipip}); }
void decide_hit_gue(benchmark::State& state) { decide_bursts(state, {.mode = Forwarding::gue}); }
void decide_hit_vxlan(benchmark::State& state) { decide_bursts(state, {.mode = Forwarding::vxlan}); }
void decide_hit_gue_10000_backends(benchmark::State& state) {
  decide_bursts(state, {.mode = Forwarding::gue, .backends = 10'000});
}
void decide_hit_guarded(benchmark::State& state) { decide_bursts(state, {.guarded = true}); }
void decide_syn_flood(benchmark::State& state) { decide_bursts(state, {.flood = true}); }
void decide_udp_flood(benchmark::State& state) { decide_bursts(state, {.udp = true, .flood = true}); }
BENCHMARK(decide_hit_guarded)->Arg(1'000)->Arg(100'000)->Arg(1'000'000);
BENCHMARK(decide_hit)->Arg(1'000)->Arg(100'000)->Arg(1'000'000);
BENCHMARK(decide_hit_udp)->Arg(100'000);
BENCHMARK(decide_hit_ip6)->Arg(100'000);
BENCHMARK(decide_hit_udp_ip6)->Arg(100'000);
BENCHMARK(decide_hit_10000_backends)->Arg(100'000);
BENCHMARK(decide_hit_ipip)->Arg(100'000);
BENCHMARK(decide_hit_gue)->Arg(100'000);
BENCHMARK(decide_hit_vxlan)->Arg(100'000);
BENCHMARK(decide_hit_gue_10000_backends)->Arg(100'000);
BENCHMARK(decide_syn_flood)->Arg(100'000);
BENCHMARK(decide_udp_flood)->Arg(100'000);

// Builds all tables from a snapshot in which one of many backends changed: the main thread's work before it publishes.
void tables_after_one_change(benchmark::State& state) {
  Crowd crowd(state.range(0));
  Edge& edge = crowd.edge;
  const auto words = std::make_shared<const LiveState>();
  uint32_t weight = 100;
  for (auto _ : state) {
    state.PauseTiming();
    edge.model.pools[0].backends[0].weight = weight = 199 - weight;
    const auto snapshot = make_snapshot(1, "digest", std::make_shared<const Model>(edge.model), words);
    edge.now_ns += kNsPerMs;
    state.ResumeTiming();
    const auto built = edge.builder.build(snapshot, edge.model.nodes[0], edge.now_ns);
    if (built) {
      edge.builder.adopt(**built, edge.now_ns);
    } else {
      state.SkipWithError("not built");
    }
  }
}
BENCHMARK(tables_after_one_change)->Arg(100)->Arg(1'000)->Arg(10'000)->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace tidegate::l4
