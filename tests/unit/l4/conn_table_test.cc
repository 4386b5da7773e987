// SPDX-License-Identifier: Apache-2.0
#include "l4/conn_table.h"

#include <gtest/gtest.h>

#include <map>
#include <random>

#include "core/hash.h"

namespace tidegate::l4::conn_table_test {

constexpr FlowTimeouts kTimeouts = {30'000, 900'000, 10'000};

uint64_t hash_of(uint64_t flow) { return mix64(flow + 1); }

// Sends packets in as many different seconds as needed, the last of them at `now_ms`.
void assure(FlowEntry& flow, uint32_t now_ms) {
  for (uint32_t second = FlowEntry::kAssuringSeconds; second > 0; --second) {
    flow.advance(FlowEvent::data, kTimeouts, now_ms - (second - 1) * 1'024);
  }
}

TEST(ConnTable, FollowsTheLifeOfATcpFlow) {
  ConnTable table(1'000);
  FlowEntry* flow = table.insert(42, BackendId{3}, kTimeouts.embryonic_ms, 0);
  ASSERT_NE(flow, nullptr);
  EXPECT_EQ(flow->state, FlowState::embryonic);

  flow->advance(FlowEvent::open, kTimeouts, 5'000);  // the same SYN again
  EXPECT_EQ(flow->state, FlowState::embryonic);
  EXPECT_EQ(flow->expires_ms, 35'000u);
  flow->advance(FlowEvent::data, kTimeouts, 6'000);
  EXPECT_EQ(flow->state, FlowState::established);
  EXPECT_EQ(flow->expires_ms, 906'000u);
  flow->advance(FlowEvent::close, kTimeouts, 7'000);
  EXPECT_EQ(flow->state, FlowState::closing);
  flow->advance(FlowEvent::data, kTimeouts, 16'000);  // the acknowledgement of the backend's FIN
  EXPECT_EQ(flow->state, FlowState::closing);
  EXPECT_NE(table.find(42, 25'999), nullptr);
  EXPECT_EQ(table.find(42, 26'000), nullptr);
  EXPECT_EQ(table.live(), 0u);
}

TEST(ConnTable, SurvivesTheWrapOfItsClock) {
  ConnTable table(1'000);
  const uint32_t late = UINT32_MAX - 1'000;
  table.insert(42, BackendId{3}, 5'000, late);
  EXPECT_NE(table.find(42, late + 4'999), nullptr);
  EXPECT_EQ(table.find(42, late + 5'000), nullptr);
}

TEST(ConnTable, ListsEachLiveFlowOnceInPages) {
  ConnTable table(1'000);
  std::map<uint64_t, BackendId> twin;
  for (uint64_t i = 1; i <= 700; ++i) {
    const BackendId backend{static_cast<uint16_t>(i % 3)};
    const bool ends = i % 10 == 0;
    ASSERT_NE(table.insert(hash_of(i), backend, ends ? 10 : 1'000, 0), nullptr);
    if (!ends) twin[hash_of(i)] = backend;
  }
  for (const std::optional<BackendId> wanted : {std::optional<BackendId>(), std::optional(BackendId{2})}) {
    std::map<uint64_t, BackendId> found;
    uint64_t bucket = 0;
    while (bucket < table.bucket_count()) {
      std::vector<FlowEntry> page;
      bucket = table.list(bucket, 16, wanted, 5, 500, page);
      EXPECT_LE(page.size(), 8u);
      for (const FlowEntry& flow : page) EXPECT_TRUE(found.emplace(flow.hash, flow.backend).second) << "twice";
    }
    std::map<uint64_t, BackendId> expected = twin;
    if (wanted) std::erase_if(expected, [&](const auto& flow) { return flow.second != *wanted; });
    EXPECT_EQ(found, expected);
  }
  std::vector<FlowEntry> none;
  EXPECT_EQ(table.list(UINT64_MAX, 16, std::nullopt, 5, 500, none), table.bucket_count());
  EXPECT_TRUE(none.empty());
}

// A map that never evicts. The table must agree with it while it has evicted nothing.
TEST(ConnTable, AgreesWithANaiveTwin) {
  struct Twin {
    BackendId backend;
    uint32_t expires_ms;
  };
  ConnTable table(4'096);
  std::map<uint64_t, Twin> twin;
  std::mt19937_64 random(7);
  uint32_t now_ms = 0;
  for (int step = 0; step < 200'000; ++step) {
    now_ms += static_cast<uint32_t>(random() % 3);
    const uint64_t hash = hash_of(random() % 6'000);
    const auto known = twin.find(hash);
    const bool expected = known != twin.end() && static_cast<int32_t>(now_ms - known->second.expires_ms) < 0;
    FlowEntry* found = table.find(hash, now_ms);
    ASSERT_EQ(found != nullptr, expected);
    if (found != nullptr) {
      ASSERT_EQ(found->backend, known->second.backend);
      if (random() % 4 == 0) {
        table.erase(*found);
        twin.erase(known);
      }
    } else {
      const BackendId backend{static_cast<uint16_t>(random() % 100)};
      const auto timeout_ms = static_cast<uint32_t>(random() % 3'000 + 1);
      ASSERT_NE(table.insert(hash, backend, timeout_ms, now_ms), nullptr);
      twin[hash] = {backend, now_ms + timeout_ms};
    }
    if (step % 64 == 0) table.sweep(16, now_ms);
    ASSERT_EQ(table.evicted(), 0u);
  }
}

TEST(ConnTable, HoldsItsNominalNumberOfFlows) {
  constexpr uint64_t kFlows = 100'000;
  ConnTable table(kFlows);
  for (uint64_t flow = 0; flow < kFlows; ++flow) {
    FlowEntry* entry = table.insert(hash_of(flow), BackendId{1}, 60'000, 0);
    ASSERT_NE(entry, nullptr);
    entry->advance(FlowEvent::data, kTimeouts, 0);
  }
  EXPECT_EQ(table.live(), kFlows);
  EXPECT_EQ(table.evicted(), 0u);
}

TEST(ConnTable, NeverGivesUpAnEstablishedFlowForAFlood) {
  ConnTable table(1'000);
  std::vector<uint64_t> established;
  for (uint64_t flow = 0; flow < 500; ++flow) {
    FlowEntry* entry = table.insert(hash_of(flow), BackendId{1}, 30'000, 0);
    ASSERT_NE(entry, nullptr);
    entry->advance(FlowEvent::data, kTimeouts, 0);
    established.push_back(hash_of(flow));
  }
  for (uint64_t flood = 10'000; flood < 60'000; ++flood) {
    if (table.find(hash_of(flood), 1) == nullptr) table.insert(hash_of(flood), BackendId{2}, 30'000, 1);
  }
  EXPECT_GT(table.evicted(), 0u);
  EXPECT_LE(table.live(), table.capacity());
  for (const uint64_t hash : established) {
    ASSERT_NE(table.find(hash, 2), nullptr);
    EXPECT_EQ(table.find(hash, 2)->backend, BackendId{1});
  }
}

TEST(ConnTable, RefusesANewFlowWhereAllAreAssured) {
  ConnTable table(1);
  uint64_t accepted = 0;
  for (uint64_t flow = 0; flow < 50; ++flow) {
    FlowEntry* entry = table.insert(hash_of(flow), BackendId{1}, 30'000, 0);
    if (entry == nullptr) continue;
    assure(*entry, 10'000);
    ++accepted;
  }
  EXPECT_EQ(accepted, table.capacity());
  EXPECT_EQ(table.evicted(), 0u);
}

TEST(ConnTable, AnEstablishedFlowIsAssuredByTrafficOverTime) {
  ConnTable table(1'000);
  FlowEntry* flow = table.insert(42, BackendId{3}, kTimeouts.embryonic_ms, 0);
  ASSERT_NE(flow, nullptr);
  for (uint32_t now_ms = 0; now_ms < 1'000; now_ms += 10) flow->advance(FlowEvent::data, kTimeouts, now_ms);
  EXPECT_FALSE(flow->assured());
  flow->advance(FlowEvent::data, kTimeouts, 2'000);
  EXPECT_TRUE(flow->assured());
  flow->advance(FlowEvent::data, kTimeouts, 100'000);
  EXPECT_TRUE(flow->assured());
  flow->advance(FlowEvent::close, kTimeouts, 100'001);
  EXPECT_FALSE(flow->assured());
  flow->advance(FlowEvent::data, kTimeouts, 100'002);
  EXPECT_EQ(flow->state, FlowState::closing);
}

TEST(ConnTable, AFlowWithoutABeginningIsEstablishedByTrafficOverTime) {
  ConnTable table(1'000);
  FlowEntry* flow = table.insert(42, BackendId{3}, kTimeouts.established_ms, 100, FlowState::stray);
  ASSERT_NE(flow, nullptr);
  for (uint32_t now_ms = 100; now_ms < 1'000; now_ms += 10) flow->advance(FlowEvent::data, kTimeouts, now_ms);
  EXPECT_EQ(flow->state, FlowState::stray) << "however many there are";
  EXPECT_EQ(flow->expires_ms, 900'990u) << "one that speaks seldom must be found again";
  flow->advance(FlowEvent::data, kTimeouts, 21'000);
  EXPECT_EQ(flow->state, FlowState::established);
  EXPECT_EQ(flow->expires_ms, 921'000u);
  flow->advance(FlowEvent::close, kTimeouts, 22'000);
  EXPECT_EQ(flow->state, FlowState::closing);

  flow = table.insert(43, BackendId{3}, kTimeouts.embryonic_ms, 0, FlowState::stray);
  flow->advance(FlowEvent::close, kTimeouts, 10);
  EXPECT_EQ(flow->state, FlowState::closing);
}

TEST(ConnTable, ForgedAcknowledgementsTakeNoPlaceFromThoseWhoShakeHands) {
  ConnTable table(1'000);
  std::vector<uint64_t> clients;
  const auto shake_hands = [&](uint64_t flow, uint32_t now_ms) {
    FlowEntry* entry = table.insert(hash_of(flow), BackendId{1}, kTimeouts.embryonic_ms, now_ms);
    ASSERT_NE(entry, nullptr) << "a client without a place";
    entry->advance(FlowEvent::data, kTimeouts, now_ms);
    clients.push_back(hash_of(flow));
  };
  for (uint64_t flow = 0; flow < 300; ++flow) shake_hands(flow, 0);
  for (uint64_t flood = 0; flood < 50'000; ++flood) {
    const uint64_t hash = hash_of(1'000'000 + flood);
    const auto now_ms = static_cast<uint32_t>(flood / 10);
    FlowEntry* entry = table.find(hash, now_ms);
    if (entry == nullptr) entry = table.insert(hash, BackendId{2}, kTimeouts.embryonic_ms, now_ms, FlowState::stray);
    if (entry != nullptr) entry->advance(FlowEvent::data, kTimeouts, now_ms);  // the second packet of the pair
    if (flood % 250 == 249) shake_hands(1'000 + flood, now_ms);
  }
  EXPECT_GT(table.evicted(), 10'000u);
  for (const uint64_t hash : clients) EXPECT_NE(table.find(hash, 5'000), nullptr);
}

// A SYN and an acknowledgement from forged addresses, 100 such pairs for each place in the table.
TEST(ConnTable, ForgedHandshakesTakeNoPlaceFromFlowsThatLastNorFromNewClients) {
  ConnTable table(1'000);
  std::vector<uint64_t> lasting;
  for (uint64_t flow = 0; flow < 300; ++flow) {
    FlowEntry* entry = table.insert(hash_of(flow), BackendId{1}, kTimeouts.embryonic_ms, 0);
    ASSERT_NE(entry, nullptr);
    assure(*entry, 5'000);
    lasting.push_back(hash_of(flow));
  }
  const uint64_t forged = table.capacity() * 100;
  for (uint64_t flood = 0; flood < forged; ++flood) {
    const auto now_ms = static_cast<uint32_t>(6'000 + flood / 100);
    FlowEntry* entry = table.insert(hash_of(1'000'000 + flood), BackendId{2}, kTimeouts.embryonic_ms, now_ms);
    if (entry != nullptr) entry->advance(FlowEvent::data, kTimeouts, now_ms);
    if (flood % 250 != 249) continue;
    entry = table.insert(hash_of(1'000 + flood), BackendId{1}, kTimeouts.embryonic_ms, now_ms);
    ASSERT_NE(entry, nullptr) << "a new client without a place";
    entry->advance(FlowEvent::data, kTimeouts, now_ms);
    EXPECT_NE(table.find(hash_of(1'000 + flood), now_ms), nullptr);
  }
  EXPECT_GT(table.evicted(), forged / 2);
  for (const uint64_t hash : lasting) EXPECT_NE(table.find(hash, 10'000), nullptr);
}

// Half of the flows begin with a handshake, half in the middle. Each has had packets in two different seconds.
TEST(ConnTable, AFloodOfAnyKindLeavesEveryFlowThatHadTrafficInTwoSeconds) {
  for (const char* kind : {"SYNs", "whole handshakes", "acknowledgements", "resets"}) {
    SCOPED_TRACE(kind);
    ConnTable table(1'000);
    std::vector<uint64_t> lasting;
    for (uint64_t flow = 0; flow < 600; ++flow) {
      const FlowState begun_as = flow % 2 == 0 ? FlowState::embryonic : FlowState::stray;
      FlowEntry* entry = table.insert(hash_of(flow), BackendId{1}, kTimeouts.of(begun_as), 500, begun_as);
      ASSERT_NE(entry, nullptr);
      entry->advance(FlowEvent::data, kTimeouts, 600);
      entry->advance(FlowEvent::data, kTimeouts, 1'100);
      lasting.push_back(hash_of(flow));
    }
    const bool begins = kind[0] == 'S' || kind[0] == 'w';
    for (uint64_t flood = 0; flood < table.capacity() * 20; ++flood) {
      const auto now_ms = static_cast<uint32_t>(2'000 + flood / 20);
      const FlowState begun_as = begins ? FlowState::embryonic : FlowState::stray;
      FlowEntry* entry =
          table.insert(hash_of(1'000'000 + flood), BackendId{2}, kTimeouts.of(begun_as), now_ms, begun_as);
      if (entry == nullptr) continue;
      if (kind[0] == 'w') entry->advance(FlowEvent::data, kTimeouts, now_ms);
      if (kind[0] == 'r') entry->advance(FlowEvent::reset, kTimeouts, now_ms);
    }
    EXPECT_GT(table.evicted(), table.capacity() * 10);
    for (const uint64_t hash : lasting) ASSERT_NE(table.find(hash, 10'000), nullptr);
  }
}

TEST(ConnTable, OneForgedResetOrSynDoesNotUnpinAnAssuredFlow) {
  ConnTable table(1'000);
  FlowEntry* flow = table.insert(42, BackendId{3}, kTimeouts.embryonic_ms, 0);
  assure(*flow, 5'000);
  EXPECT_FALSE(flow->begins_anew());
  flow->advance(FlowEvent::open, kTimeouts, 6'000);
  EXPECT_TRUE(flow->assured());
  EXPECT_EQ(flow->expires_ms, 905'000u) << "a forged SYN does not keep it either";

  flow->advance(FlowEvent::reset, kTimeouts, 7'000);
  EXPECT_TRUE(flow->assured()) << "it keeps its place in a flood";
  EXPECT_TRUE(flow->begins_anew());
  EXPECT_EQ(flow->expires_ms, 67'000u);
  flow->advance(FlowEvent::data, kTimeouts, 60'000);
  EXPECT_FALSE(flow->begins_anew()) << "who sent that did not send the RST";
  EXPECT_EQ(flow->expires_ms, 960'000u);

  flow->advance(FlowEvent::reset, kTimeouts, 61'000);
  flow->advance(FlowEvent::reset, kTimeouts, 61'001);
  EXPECT_EQ(table.find(42, 121'001), nullptr) << "a connection that was reset is forgotten in a minute";

  flow = table.insert(43, BackendId{3}, kTimeouts.embryonic_ms, 0);
  flow->advance(FlowEvent::data, kTimeouts, 1);
  flow->advance(FlowEvent::reset, kTimeouts, 2);
  EXPECT_EQ(flow->state, FlowState::closing) << "a flow that is not assured closes at once";
}

TEST(ConnTable, OneForgedFinDoesNotUnpinAFlowThatGoesOn) {
  for (const bool was_assured : {true, false}) {
    ConnTable table(1'000);
    FlowEntry* flow = table.insert(42, BackendId{3}, kTimeouts.embryonic_ms, 0);
    flow->advance(FlowEvent::data, kTimeouts, 100);
    if (was_assured) assure(*flow, 5'000);
    flow->advance(FlowEvent::close, kTimeouts, 6'000);
    EXPECT_EQ(flow->state, FlowState::closing);
    for (uint32_t now_ms = 6'010; now_ms < 7'100; now_ms += 10) flow->advance(FlowEvent::data, kTimeouts, now_ms);
    EXPECT_EQ(flow->state, FlowState::closing) << "the end of a connection may take a moment";
    flow->advance(FlowEvent::close, kTimeouts, 7'100);  // sent again, so it does not count again
    flow->advance(FlowEvent::data, kTimeouts, 9'000);
    EXPECT_TRUE(flow->assured());
    EXPECT_EQ(flow->expires_ms, 909'000u);
    flow->advance(FlowEvent::data, kTimeouts, 50'000);
    EXPECT_EQ(flow->expires_ms, 950'000u);
    EXPECT_FALSE(flow->begins_anew());
    flow->advance(FlowEvent::close, kTimeouts, 51'000);
    EXPECT_EQ(flow->state, FlowState::closing);
    EXPECT_EQ(table.find(42, 61'000), nullptr) << "a connection that closes leaves the table soon";
  }
}

TEST(ConnTable, GivesUpWhatNeverShookHandsBeforeWhatDid) {
  ConnTable table(1);
  for (uint64_t flow = 0; flow < 4; ++flow) {
    FlowEntry* entry = table.insert(hash_of(flow), BackendId{1}, kTimeouts.embryonic_ms, static_cast<uint32_t>(flow));
    if (flow != 3) entry->advance(FlowEvent::data, {30'000, 1'000, 10'000}, static_cast<uint32_t>(flow));
  }
  // The fourth flow is embryonic and has the longest time left.
  ASSERT_NE(table.insert(hash_of(9), BackendId{1}, kTimeouts.embryonic_ms, 10), nullptr);
  EXPECT_EQ(table.find(hash_of(3), 10), nullptr);
  table.find(hash_of(9), 10)->advance(FlowEvent::data, kTimeouts, 10);
  // All have completed a handshake: the one seen longest ago is evicted.
  ASSERT_NE(table.insert(hash_of(10), BackendId{1}, kTimeouts.embryonic_ms, 11), nullptr);
  EXPECT_EQ(table.find(hash_of(0), 11), nullptr);
  for (const uint64_t flow : {1, 2, 9, 10}) EXPECT_NE(table.find(hash_of(flow), 11), nullptr) << flow;
}

TEST(ConnTable, GivesUpTheStrayFlowThatWasSeenLongestAgo) {
  ConnTable table(1);
  for (uint64_t flow = 0; flow < 4; ++flow) {
    table.insert(hash_of(flow), BackendId{1}, kTimeouts.embryonic_ms, static_cast<uint32_t>(flow), FlowState::stray);
  }
  table.find(hash_of(0), 5)->advance(FlowEvent::data, kTimeouts, 5);
  ASSERT_NE(table.insert(hash_of(9), BackendId{2}, kTimeouts.embryonic_ms, 6, FlowState::stray), nullptr);
  EXPECT_EQ(table.find(hash_of(1), 6), nullptr);
  for (const uint64_t flow : {0, 2, 3, 9}) EXPECT_NE(table.find(hash_of(flow), 6), nullptr) << flow;
}

TEST(ConnTable, PrefersAnExpiredFlowToALivingOne) {
  ConnTable table(1);
  ASSERT_EQ(table.capacity(), 4u);  // one bucket, so both choices of every flow are the same
  table.insert(hash_of(0), BackendId{1}, 10, 0);
  for (uint64_t flow = 1; flow < 4; ++flow) table.insert(hash_of(flow), BackendId{1}, 1'000, 0);
  ASSERT_NE(table.insert(hash_of(9), BackendId{2}, 1'000, 20), nullptr);
  EXPECT_EQ(table.evicted(), 0u);
  for (uint64_t flow = 1; flow < 4; ++flow) EXPECT_NE(table.find(hash_of(flow), 20), nullptr);
}

TEST(ConnTable, SweepsExpiredFlowsAway) {
  ConnTable table(1'000);
  for (uint64_t flow = 0; flow < 500; ++flow) table.insert(hash_of(flow), BackendId{1}, 100, 0);
  table.sweep(table.bucket_count(), 99);
  EXPECT_EQ(table.live(), 500u);
  table.sweep(table.bucket_count(), 100);
  EXPECT_EQ(table.live(), 0u);
}

}  // namespace tidegate::l4::conn_table_test
