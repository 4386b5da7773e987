// SPDX-License-Identifier: Apache-2.0
// Fragmented datagrams: they follow their flow on any worker, and a flood of them takes no flow's place.
#include <gtest/gtest.h>

#include <map>
#include <random>
#include <unordered_map>

#include "l4/fragment_table.h"
#include "tests/unit/l4/harness.h"

namespace tidegate::l4::fragments_test {

using namespace testing;

constexpr uint16_t kMore = 0x2000;

Bytes fragment4(uint16_t id, uint16_t field, uint16_t port, uint16_t service = 53) {
  Ip4Options more;
  more.id = id;
  more.fragment_field = field;
  const Bytes payload = (field & 0x1fff) == 0 ? udp(port, service, std::string(64, 'x')) : Bytes(64, 'y');
  return ethernet(kEtherTypeIp4, ip4(ip("192.0.2.7"), ip("10.0.0.100"), kProtocolUdp, payload, more));
}

// `next` is the fragment header's Next Header. The first fragment may begin with a further extension header.
Bytes fragment6(uint32_t id, uint16_t field, uint8_t next, const Bytes& payload) {
  Bytes header = {next, 0};
  append_be16(header, field);
  append_be16(header, id >> 16);
  append_be16(header, id & 0xffff);
  append(header, payload);
  return ethernet(kEtherTypeIp6, ip6(ip("2001:db8::7"), ip("fd00::100"), 44, header));
}

DeciderConfig one_of_two_workers() {
  DeciderConfig config;
  config.workers = 2;
  return config;
}

// Two workers of one node. A frame goes to the other one if the first hands it over.
struct TwoWorkers {
  Harness first{one_of_two_workers()}, second{one_of_two_workers()};

  int backend_of(Harness& at, const Bytes& frame) {
    Decided decided = at.decide(frame);
    if (decided.outcome.verdict == FrameVerdict::hand_over) {
      decided = (&at == &first ? second : first).decide(decided.frame, 1);
      EXPECT_NE(decided.outcome.verdict, FrameVerdict::hand_over) << "the last worker decides";
    }
    return Harness::backend_of(decided);
  }
  void say(size_t backend, OverrideState state) {
    for (Harness* each : {&first, &second}) {
      each->edge.say(backend, state);
      each->publish();
    }
  }
};

// The router spreads whole packets by ports and fragments without them. The tables have changed since the flows began,
// so only the flow table knows their backends.
TEST(Fragments, FollowTheirFlowWhicheverWorkerGetsThem) {
  TwoWorkers workers;
  std::map<uint16_t, int> pinned;
  for (uint16_t port = 1'000; port < 1'600; ++port) {
    pinned[port] = workers.backend_of(workers.first, udp_frame("192.0.2.7", port, "10.0.0.100", 53));
    ASSERT_GE(pinned[port], 0);
  }
  workers.say(0, OverrideState::drained);
  unsigned on_draining = 0;
  for (const auto& [port, backend] : pinned) {
    EXPECT_EQ(workers.backend_of(workers.second, fragment4(port, kMore, port)), backend);
    EXPECT_EQ(workers.backend_of(workers.second, fragment4(port, kMore | 9, port)), backend);
    EXPECT_EQ(workers.backend_of(workers.second, fragment4(port, 18, port)), backend);
    on_draining += backend == 0 ? 1 : 0;
  }
  EXPECT_GT(on_draining, 100u);
  EXPECT_EQ(workers.second.counters->flows_created.value(), 0u) << "no second entry for the same flow";
}

TEST(Fragments, OfANewFlowArePinnedByTheLastWorkerAsked) {
  TwoWorkers workers;
  const int first = workers.backend_of(workers.first, fragment4(1, kMore, 4'000));
  ASSERT_GE(first, 0);
  EXPECT_EQ(workers.backend_of(workers.first, fragment4(1, 9, 4'000)), first);
  EXPECT_EQ(workers.second.counters->flows_created.value(), 1u);
}

TEST(Fragments, ThatNobodyKnowsAreDroppedOnce) {
  TwoWorkers workers;
  EXPECT_EQ(workers.backend_of(workers.first, fragment4(1, 9, 4'000)), -1);
  const auto without_first = static_cast<size_t>(DropReason::fragment_without_first);
  EXPECT_EQ(workers.first.counters->dropped_packets[without_first].value(), 0u);
  EXPECT_EQ(workers.second.counters->dropped_packets[without_first].value(), 1u);
}

TEST(Fragments, OfIpv6AreOneDatagramWhateverTheirNextHeader) {
  Harness worker;
  Bytes options = {kProtocolUdp, 0, 1, 4, 0, 0, 0, 0};
  append(options, udp(4'000, 53, std::string(64, 'x')));
  const int first = Harness::backend_of(worker.decide(fragment6(7, 1, 60, options)));
  ASSERT_GE(first, 0);
  EXPECT_EQ(Harness::backend_of(worker.decide(fragment6(7, 80 | 1, 60, Bytes(64, 'y')))), first);
  EXPECT_EQ(Harness::backend_of(worker.decide(fragment6(7, 160, kProtocolUdp, Bytes(64, 'y')))), first);
  EXPECT_EQ(Harness::backend_of(worker.decide(fragment6(8, 160, kProtocolUdp, Bytes(64, 'y')))), -1);
}

TEST(Fragments, OfTwoProtocolsAreTwoDatagramsInIpv4) {
  Harness worker;
  ASSERT_GE(Harness::backend_of(worker.decide(fragment4(7, kMore, 4'000))), 0);
  Ip4Options more;
  more.id = 7;
  more.fragment_field = 9;
  const Bytes other = ip4(ip("192.0.2.7"), ip("10.0.0.100"), kProtocolTcp, Bytes(64, 'y'), more);
  EXPECT_EQ(Harness::backend_of(worker.decide(ethernet(kEtherTypeIp4, other))), -1);
}

TEST(Fragments, OfAFloodTakeNoPlaceInTheFlowTable) {
  Harness worker;
  const int pinned = Harness::backend_of(worker.decide(udp_frame("192.0.2.7", 4'000, "10.0.0.100", 53)));
  for (uint32_t id = 0; id < 6'000; ++id) {
    worker.decide(fragment4(static_cast<uint16_t>(id), kMore, 4'000));
  }
  EXPECT_EQ(worker.counters->flows_created.value(), 1u);
  EXPECT_EQ(Harness::backend_of(worker.decide(udp_frame("192.0.2.7", 4'000, "10.0.0.100", 53))), pinned);
  worker.decider->tick(worker.now_ms, worker);
  EXPECT_EQ(worker.counters->flows_live.value(), 1u);
  EXPECT_LE(worker.counters->fragmented.value(), 4 * kMaxFragmented);
}

// The table remembers what a map with time stamps remembers, as long as it has room.
void compare_with_a_map(int operations) {
  FragmentTable table(kMaxFragmented);
  struct Known {
    BackendId backend;
    ServiceId service;
    uint32_t until_ms;
  };
  std::unordered_map<uint64_t, Known> twin;
  std::mt19937_64 random(7);
  uint32_t now_ms = UINT32_MAX - 100'000;  // the clock wraps on the way
  for (int operation = 0; operation < operations; ++operation) {
    now_ms += random() % 8 == 0 ? 1 : 0;
    const uint64_t hash = mix64(random() % 6'000 + 1);
    if (random() % 2 == 0) {
      const BackendId backend{static_cast<uint16_t>(random() % 100)};
      const ServiceId service{static_cast<uint16_t>(random() % 100)};
      table.remember(hash, backend, service, now_ms);
      twin[hash] = {backend, service, now_ms + FragmentTable::kKeepMs};
    } else {
      const auto known = twin.find(hash);
      const bool alive = known != twin.end() && static_cast<int32_t>(now_ms - known->second.until_ms) < 0;
      const FragmentTable::Found found = table.find(hash, now_ms);
      ASSERT_EQ(found.backend, alive ? known->second.backend : kNoBackend) << operation;
      ASSERT_EQ(found.service, alive ? known->second.service : kNoService) << operation;
    }
    if (operation % 64 == 0) table.sweep(1, now_ms);
  }
}

TEST(FragmentTable, AgreesWithAMapOverRandomOperations) { compare_with_a_map(100'000); }
TEST(LongFragmentTable, AgreesWithAMapOverAMillionRandomOperations) { compare_with_a_map(1'000'000); }

}  // namespace tidegate::l4::fragments_test
