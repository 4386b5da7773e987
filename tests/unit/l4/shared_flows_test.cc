// SPDX-License-Identifier: Apache-2.0
// Flows that forwarders report to each other: the datagrams, replays of them, and their effect on a flow table.
#include <gtest/gtest.h>

#include <random>

#include "conf/model.h"
#include "conf/model/node.h"
#include "core/crypto.h"
#include "core/hash.h"
#include "l4/conn_table.h"
#include "l4/plan/share_settings.h"
#include "l4/share/datagram.h"

namespace tidegate::l4::shared_flows_test {

constexpr FlowTimeouts kTimeouts = {30'000, 900'000, 10'000};
constexpr ShareClock kNow = {1'800'000'000'000, 5'000'000};
const Endpoint kSender = *Endpoint::parse("192.0.2.1:7000");

struct Received {
  ShareFault fault = ShareFault::none;
  std::vector<SharedFlow> flows;
};

class SharedFlows : public ::testing::Test {
 protected:
  std::string sealed(const std::vector<SharedFlow>& flows, ShareHead head = {7, 1, kNow.wall_ms}) const {
    std::string out(kMostShareBytes, '\0');
    out.resize(seal_flows(key_, head, flows.data(), flows.size(), reinterpret_cast<uint8_t*>(out.data())));
    return out;
  }
  Received open(const std::string& datagram, const ShareClock& now = kNow) { return open(datagram, now, key_); }
  Received open(const std::string& datagram, const ShareClock& now, const std::string& key) {
    // On the heap and of the exact size, so that the sanitizer finds a read beyond it.
    const std::vector<uint8_t> bytes(datagram.begin(), datagram.end());
    Received received;
    received.flows.resize(kMostSharedFlows);
    const OpenedFlows opened = open_flows(key, bytes.data(), bytes.size(), now, guard_, received.flows.data());
    received.fault = opened.fault;
    received.flows.resize(opened.count);
    return received;
  }
  // The same bytes with a valid code.
  std::string with_code(std::string datagram) const {
    datagram.resize(datagram.size() - kShareMacBytes);
    const Sha256 mac = hmac_sha256(key_, datagram);
    return datagram.append(reinterpret_cast<const char*>(mac.data()), kShareMacBytes);
  }

  std::string key_ = share_key("secret", kSender);
  ReplayGuard guard_;
};

TEST_F(SharedFlows, ArriveAsTheyWereSent) {
  std::mt19937_64 random(1);
  for (size_t count = 0; count <= kMostSharedFlows; ++count) {
    std::vector<SharedFlow> flows(count);
    for (SharedFlow& flow : flows) flow = {random(), random(), static_cast<uint32_t>(random())};
    const Received received = open(sealed(flows, {7, count + 1, kNow.wall_ms}));
    ASSERT_EQ(received.fault, ShareFault::none);
    ASSERT_EQ(received.flows.size(), count);
    for (size_t i = 0; i < count; ++i) {
      EXPECT_EQ(received.flows[i].hash, flows[i].hash);
      EXPECT_EQ(received.flows[i].backend, flows[i].backend);
      EXPECT_EQ(received.flows[i].left_ms, flows[i].left_ms);
    }
  }
}

TEST_F(SharedFlows, FitIntoAPacketOfEitherFamily) { EXPECT_LE(kMostShareBytes, 1'500u - 40u - 8u); }

TEST_F(SharedFlows, EachChangedOrMissingByteIsRefused) {
  const std::string sound = sealed({{1, 2, 3}, {4, 5, 6}});
  for (size_t at = 0; at < sound.size(); ++at) {
    std::string changed = sound;
    changed[at] = static_cast<char>(changed[at] ^ 0x40);
    EXPECT_NE(open(changed).fault, ShareFault::none) << "byte " << at;
    EXPECT_EQ(open(sound.substr(0, at)).fault, ShareFault::malformed) << "cut to " << at;
  }
  EXPECT_EQ(open(sound + "x").fault, ShareFault::malformed);
  EXPECT_EQ(open(std::string(kMostShareBytes + 1, 'T')).fault, ShareFault::malformed);
  EXPECT_EQ(open(sound).fault, ShareFault::none) << "what was refused is not remembered";
}

TEST_F(SharedFlows, EachFaultHasItsName) {
  std::string other_layout = sealed({});
  other_layout[4] = 2;
  EXPECT_EQ(open(with_code(other_layout)).fault, ShareFault::layout);
  std::string too_many = sealed({});
  too_many[6] = 1;  // 256 flows
  EXPECT_EQ(open(with_code(too_many)).fault, ShareFault::malformed);
  std::string forged = sealed({{1, 2, 3}});
  forged[kShareHeadBytes] = 9;
  EXPECT_EQ(open(forged).fault, ShareFault::forged);
  EXPECT_EQ(open(sealed({}, {7, 1, kNow.wall_ms - kShareFreshMs - 1})).fault, ShareFault::stale);
  EXPECT_EQ(open(sealed({}, {7, 1, kNow.wall_ms + kShareFreshMs + 1})).fault, ShareFault::stale);
  EXPECT_EQ(open(sealed({}, {7, 1, kNow.wall_ms - kShareFreshMs})).fault, ShareFault::none);
  for (size_t i = 0; i < kShareFaults; ++i) {
    EXPECT_FALSE(name(static_cast<ShareFault>(i)).empty() || sentence(static_cast<ShareFault>(i)).empty());
  }
}

// Otherwise an attacker could send a forwarder its own datagrams with another forwarder's address, and make it refuse
// the real ones.
TEST_F(SharedFlows, OfAnotherSenderOrSecretAreForged) {
  const std::string datagram = sealed({{1, 2, 3}});
  EXPECT_EQ(open(datagram, kNow, share_key("secret", *Endpoint::parse("192.0.2.2:7000"))).fault, ShareFault::forged);
  EXPECT_EQ(open(datagram, kNow, share_key("another secret", kSender)).fault, ShareFault::forged);
  EXPECT_EQ(open(datagram).fault, ShareFault::none);
}

// Compared with a twin that remembers every number: nothing is accepted twice, and everything that is not too old is
// accepted once.
TEST_F(SharedFlows, ThatWereReceivedOnceAreNotTakenAgain) {
  std::mt19937_64 random(3);
  std::vector<bool> taken(4'000);
  uint64_t newest = 0;
  for (int i = 0; i < 20'000; ++i) {
    const uint64_t sequence = std::min<uint64_t>(newest + 40, 3'999) - std::min<uint64_t>(random() % 120, newest + 39);
    const ShareFault fault = open(sealed({}, {7, sequence, kNow.wall_ms})).fault;
    const bool too_old = newest >= 64 && sequence <= newest - 64;
    EXPECT_EQ(fault, taken[sequence] || too_old ? ShareFault::replayed : ShareFault::none)
        << sequence << " after " << newest;
    if (fault != ShareFault::none) continue;
    taken[sequence] = true;
    newest = std::max(newest, sequence);
  }
  EXPECT_EQ(newest, 3'999u);
}

TEST_F(SharedFlows, OfAnEarlierStartOfTheSenderAreReplayedUntilASilenceMadeThemStale) {
  EXPECT_EQ(open(sealed({}, {8, 5, kNow.wall_ms})).fault, ShareFault::none);
  EXPECT_EQ(open(sealed({}, {7, 9, kNow.wall_ms})).fault, ShareFault::replayed);
  EXPECT_EQ(open(sealed({}, {9, 1, kNow.wall_ms})).fault, ShareFault::none) << "a new start begins at 1 again";
  // A sender whose wall clock was set back before it started is accepted again after the silence.
  const ShareClock later = {kNow.wall_ms, kNow.monotonic_ms + ReplayGuard::kForgetMs + 1};
  EXPECT_EQ(open(sealed({}, {3, 1, kNow.wall_ms}), later).fault, ShareFault::none);
}

TEST_F(SharedFlows, NameBackendsByPoolAndName) {
  const HashKey key{1, 2};
  EXPECT_EQ(backend_word(key, {"web", "a"}), backend_word(key, {"web", "a"}));
  EXPECT_NE(backend_word(key, {"web", "a"}), backend_word(key, {"we", "ba"}));
  EXPECT_NE(backend_word(key, {"web", "a"}), backend_word({1, 3}, {"web", "a"}));
}

TEST(SharedFlowTable, KeepsALearnedFlowUntilItsEndAndRenewsIt) {
  ConnTable table(1'000);
  EXPECT_EQ(table.learn({42, BackendId{3}, 5'000}, 0), Lesson::learned);
  ASSERT_NE(table.find(42, 4'999), nullptr);
  EXPECT_TRUE(table.find(42, 0)->assured());
  EXPECT_EQ(table.learn({42, BackendId{4}, 5'000}, 2'000), Lesson::renewed);
  EXPECT_EQ(table.find(42, 6'999)->backend, BackendId{4});
  EXPECT_EQ(table.live(), 1u);
  EXPECT_EQ(table.find(42, 7'000), nullptr);
  EXPECT_EQ(table.learn({42, BackendId{4}, 5'000}, 7'000), Lesson::learned);
  EXPECT_EQ(table.learn({42, BackendId{4}, 0}, 7'001), Lesson::ended);
  EXPECT_EQ(table.learn({42, BackendId{4}, 0}, 7'001), Lesson::known);
  EXPECT_EQ(table.live(), 0u);
}

TEST(SharedFlowTable, LeavesItsOwnFlowsAlone) {
  ConnTable table(1'000);
  FlowEntry* own = table.insert(42, BackendId{3}, kTimeouts.embryonic_ms, 0);
  EXPECT_EQ(table.learn({42, BackendId{4}, 5'000}, 0), Lesson::known);
  EXPECT_EQ(table.learn({42, BackendId{4}, 0}, 0), Lesson::known);
  EXPECT_EQ(own->backend, BackendId{3});
  EXPECT_EQ(own->state, FlowState::embryonic);
}

// A SYN or RST may be forged by somebody who knows only the tuple.
TEST(SharedFlowTable, IsNotShakenByAForgedSynAndRenewedAfterAForgedReset) {
  ConnTable table(1'000);
  ASSERT_EQ(table.learn({42, BackendId{3}, 800'000}, 0), Lesson::learned);
  FlowEntry* flow = table.find(42, 0);
  EXPECT_FALSE(flow->begins_anew());
  flow->advance(FlowEvent::reset, kTimeouts, 1'000);
  EXPECT_EQ(flow->expires_ms, 1'000 + FlowEntry::kDoubtMs);
  EXPECT_TRUE(flow->begins_anew());
  flow->advance(FlowEvent::close, kTimeouts, 1'000);
  EXPECT_EQ(flow->state, FlowState::closing);
  EXPECT_EQ(table.learn({42, BackendId{3}, 800'000}, 2'000), Lesson::renewed);
  EXPECT_FALSE(flow->begins_anew());
  EXPECT_EQ(flow->expires_ms, 802'000u);
}

// However many flows others report, they take only free places, and a flood of new flows displaces them last.
TEST(SharedFlowTable, GivesLearnedFlowsFreePlacesAlone) {
  ConnTable table(1'024);
  std::mt19937_64 random(5);
  std::vector<uint64_t> own;
  for (size_t i = 0; i < table.capacity() / 4; ++i) {
    own.push_back(random() | 1);
    ASSERT_NE(table.insert(own.back(), BackendId{1}, kTimeouts.embryonic_ms, 0), nullptr);
  }
  size_t learned = 0, refused = 0;
  for (size_t i = 0; i < table.capacity() * 4; ++i) {
    const Lesson lesson = table.learn({random() | 1, BackendId{2}, 900'000}, 1);
    learned += size_t{lesson == Lesson::learned};
    refused += size_t{lesson == Lesson::no_room};
  }
  EXPECT_EQ(table.live(), table.capacity());
  EXPECT_EQ(table.evicted(), 0u);
  EXPECT_EQ(learned, table.capacity() - own.size());
  EXPECT_GT(refused, 0u);
  for (const uint64_t hash : own) ASSERT_NE(table.find(hash, 2), nullptr);
  // New flows still find places, because there is always one worth less than an assured flow of this table.
  for (size_t i = 0; i < table.capacity(); ++i) {
    ASSERT_NE(table.insert(random() | 1, BackendId{1}, kTimeouts.embryonic_ms, 3), nullptr);
  }
}

TEST(SharedFlowTable, GivesUpALearnedFlowAfterAllThatAreNotAssured) {
  ConnTable table(4);  // two buckets of four
  std::mt19937_64 random(6);
  std::vector<uint64_t> learned;
  while (table.live() < 3) {
    const uint64_t hash = random() | 1;
    if (table.learn({hash, BackendId{2}, 10}, 0) == Lesson::learned) learned.push_back(hash);
  }
  while (table.live() < table.capacity()) table.insert(random() | 1, BackendId{1}, kTimeouts.embryonic_ms, 0);
  for (int i = 0; i < 1'000; ++i)
    ASSERT_NE(table.insert(random() | 1, BackendId{1}, kTimeouts.embryonic_ms, 0), nullptr);
  for (const uint64_t hash : learned) EXPECT_NE(table.find(hash, 1), nullptr);
}

// A process that takes over the memory keeps them as shared flows. Memory of an earlier release has none.
TEST(SharedFlowTable, OutlivesTheProcess) {
  const uint64_t bytes = ConnTable::bytes_for(64);
  std::vector<uint8_t> room(bytes + 64);
  void* memory = room.data() + (64 - reinterpret_cast<uintptr_t>(room.data()) % 64) % 64;
  ConnTable(64, memory).learn({42, BackendId{3}, 5'000}, 0);
  ConnTable next(64, memory);
  const ConnTable::Inherited inherited = next.take_over(std::vector<bool>(8, true), 1);
  EXPECT_EQ(inherited.flows, 1u);
  EXPECT_EQ(inherited.refused, 0u);
  ASSERT_NE(next.find(42, 1), nullptr);
  EXPECT_EQ(next.find(42, 1)->shared, 1);
}

Node sharing_node(const std::string& name, uint32_t site, const char* endpoint) {
  Node node;
  node.name = name;
  node.site = site;
  node.l4.enabled = true;
  if (endpoint != nullptr) node.l4.share_flows = Endpoint::parse(endpoint);
  return node;
}

TEST(ShareSettings, NameTheOtherForwardersOfTheSite) {
  Model model;
  model.nodes = {sharing_node("a", 0, "192.0.2.1:7000"), sharing_node("b", 0, "192.0.2.2:7000"),
                 sharing_node("c", 1, "192.0.2.3:7000"), sharing_node("d", 0, nullptr)};
  const std::optional<ShareSettings> settings = share_settings(model, model.nodes[0]);
  ASSERT_TRUE(settings);
  EXPECT_EQ(settings->listen, *Endpoint::parse("192.0.2.1:7000"));
  EXPECT_EQ(settings->peers, std::vector{*Endpoint::parse("192.0.2.2:7000")});
  EXPECT_EQ(share_settings(model, model.nodes[3]), std::nullopt);
  EXPECT_TRUE(share_settings(model, model.nodes[2])->peers.empty());
}

TEST(ShareSettings, HaveABoundOfForwarders) {
  Model model;
  for (size_t i = 0; i < kMaxSharingForwarders; ++i) {
    model.nodes.push_back(sharing_node(std::to_string(i), 0, "192.0.2.1:7000"));
  }
  std::vector<Fault> faults;
  judge_sharing(model, faults);
  EXPECT_TRUE(faults.empty());
  model.nodes.push_back(sharing_node("last", 0, "192.0.2.1:7000"));
  judge_sharing(model, faults);
  ASSERT_EQ(faults.size(), 1u);
  EXPECT_EQ(faults[0].code, "too_many_forwarders");
  EXPECT_EQ(faults[0].pointer, "/nodes/16/l4/share_flows");
}

}  // namespace tidegate::l4::shared_flows_test
