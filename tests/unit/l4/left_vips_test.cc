// SPDX-License-Identifier: Apache-2.0
// Which VIP addresses a forwarder leaves to another one, while its control hears no leader.
#include "l4/left_vips.h"
#include "conf/model.h"
#include "conf/model/node.h"
#include "conf/model/site.h"

#include <gtest/gtest.h>

#include <random>

#include "core/clock.h"
#include "l4/vip_asker.h"
#include "tests/unit/l4/decider_fixture.h"

namespace tidegate::l4::left_vips_test {

using namespace testing;

const Mac kOther = {{0x02, 0, 0, 0, 0, 0x66}};
const Mac kStranger = {{0x02, 0, 0, 0, 0, 0x67}};

// A forwarder. Its control reports every 100 ms whether it hears a leader. The forwarder decides every 500 ms.
struct Host {
  explicit Host(uint32_t its_place = 0) : left(0), place(its_place) {}

  void run(uint64_t ms) {
    for (const uint64_t end = now_ns + ms * kNsPerMs; now_ns < end; now_ns += 100 * kNsPerMs) {
      if (control_runs) left.on_control(hears, now_ns);
      if (now_ns / kNsPerMs % 500 != 0) continue;
      if (answered_by && left.left().contains(vip)) left.on_claim({vip, *answered_by, 0}, now_ns);
      changes +=
          left.settle([&](const Mac& mac) { return mac == kOther && knows_other ? "other" : ""; }, place, now_ns);
    }
  }
  void claim(const Mac& by) { left.on_claim({vip, by, 0}, now_ns); }
  bool holds() const { return left.left().empty(); }

  LeftVips left;
  uint32_t place;
  IpAddress vip = ip("10.0.0.100");
  bool control_runs = true, hears = true, knows_other = true;
  std::optional<Mac> answered_by;  // who answers its questions
  uint64_t now_ns = 0;
  int changes = 0;
};

TEST(LeftVips, HoldsOnWhileEitherTheLeaderIsHeardOrNobodyClaims) {
  Host heard;
  heard.claim(kOther);
  heard.run(20'000);
  EXPECT_TRUE(heard.holds()) << "the state decides";
  EXPECT_EQ(heard.changes, 0);
  Host cut;
  cut.hears = false;
  cut.run(60'000);
  EXPECT_TRUE(cut.left.alone());
  EXPECT_TRUE(cut.holds()) << "a cut management network takes nobody down";
  cut.claim(kStranger);
  cut.run(20'000);
  EXPECT_TRUE(cut.holds()) << "a station with the same address is no forwarder";
}

TEST(LeftVips, LeavesToAnotherForwarderThatClaimsBeforeOrAfterTheSilenceIsLong) {
  for (const bool control_dies : {false, true}) {
    Host before;
    before.run(1'000);
    (control_dies ? before.control_runs : before.hears) = false;
    before.claim(kOther);
    before.run(2'000);
    EXPECT_TRUE(before.holds()) << "another leader may be there in a moment";
    before.answered_by = kOther;
    before.run(3'000);
    EXPECT_FALSE(before.holds());
    EXPECT_EQ(before.left.left().at(before.vip), "other");
  }
  Host after;
  after.hears = false;
  after.knows_other = false;
  after.run(10'000);
  after.claim(kOther);
  after.run(1'000);
  EXPECT_TRUE(after.holds());
  after.knows_other = true;
  after.run(600);
  EXPECT_FALSE(after.holds()) << "its MAC address is known now";
}

TEST(LeftVips, TakesBackWhatNobodyAnswersForOrWhatTheLeaderDecides) {
  Host host;
  host.hears = false;
  host.answered_by = kOther;
  host.run(5'000);
  host.claim(kOther);
  host.run(60'000);
  ASSERT_FALSE(host.holds()) << "as long as the other one answers";
  host.answered_by = kStranger;
  host.run(2'500);
  EXPECT_FALSE(host.holds());
  host.run(1'500);
  EXPECT_TRUE(host.holds()) << "the other one has not answered in three rounds";
  host.claim(kOther);
  host.answered_by = kOther;
  host.run(1'000);
  ASSERT_FALSE(host.holds());
  host.hears = true;
  host.run(800);
  EXPECT_FALSE(host.holds()) << "the state of the leader has to arrive";
  host.hears = false;
  host.run(200);
  host.hears = true;
  host.run(900);
  EXPECT_FALSE(host.holds()) << "heard without a break";
  host.run(1'000);
  EXPECT_TRUE(host.holds());
  EXPECT_FALSE(host.left.alone());
}

TEST(LeftVips, OneOfTwoThatLeftItToEachOtherTakesItBackFirst) {
  Host first(0), second(1);
  for (Host* host : {&first, &second}) {
    host->hears = false;
    host->run(10'000);
    host->claim(kOther);
    host->run(600);
    ASSERT_FALSE(host->holds());
  }
  for (int step = 0; step < 100 && !first.holds(); ++step) {
    ASSERT_FALSE(second.holds());
    first.run(100);
    second.run(100);
  }
  ASSERT_TRUE(first.holds());
  second.run(600);
  EXPECT_FALSE(second.holds()) << "there is time to hear the first one";
  second.claim(kOther);  // it hears the announcement
  second.answered_by = kOther;
  second.run(10'000);
  EXPECT_FALSE(second.holds());
}

// Three forwarders share a VIP on one link. Management, links and processes come and go, frames are lost, and a leader
// decides who holds it. It says only what reaches it.
class Link {
 public:
  explicit Link(uint64_t seed) : random_(seed) {
    for (uint32_t i = 0; i < kForwarders; ++i) forwarders_.emplace_back(i);
  }

  // A time in which things happen, and then one in which nothing does.
  void run(int events) {
    for (int i = 0; i < events; ++i) {
      happen();
      run_ms(random_() % 8'000);
    }
    run_ms(kQuietMs);
  }
  std::vector<uint32_t> holders() const {
    std::vector<uint32_t> found;
    for (const Forwarder& each : forwarders_) {
      if (each.on_link() && each.holds()) found.push_back(each.number);
    }
    return found;
  }
  // By the state that it has, somebody on the link holds it.
  bool somebody_must_hold() const {
    return std::any_of(forwarders_.begin(), forwarders_.end(),
                       [](const Forwarder& each) { return each.on_link() && each.opinion == each.number; });
  }
  bool decided_holder_serves() const {
    const Forwarder& holder = forwarders_[decided_];
    return holder.on_link() && holder.opinion == decided_ && holder.managed;
  }
  uint32_t decided() const { return decided_; }
  std::string tell() const {
    std::string text = "decided " + std::to_string(decided_);
    for (const Forwarder& each : forwarders_) {
      text += " | " + std::string(each.alive ? "" : "dead ") + (each.link ? "" : "unplugged ") +
              (each.managed ? "" : "cut ") + "thinks " + std::to_string(each.opinion) + (each.holds() ? " holds" : "");
    }
    return text;
  }

 private:
  static constexpr uint32_t kForwarders = 3;
  static constexpr uint64_t kStepMs = 100, kQuietMs = 40'000;
  struct Forwarder {
    explicit Forwarder(uint32_t its_number) : number(its_number), left(0) {}
    bool on_link() const { return alive && link; }
    bool holds() const { return alive && opinion == number && left.left().empty(); }
    void start_announcing() { announcements = VipAnnouncer::kTimes; }

    uint32_t number;
    LeftVips left;
    uint32_t opinion = 0;  // who holds the VIP, by the state that it has
    bool alive = true, link = true, managed = true, held = false;
    int announcements = 0;
    uint64_t announced_ns = 0, defended_ns = 0;
  };

  static Mac mac_of(uint32_t number) { return {{0x02, 0, 0, 0, 1, static_cast<uint8_t>(number)}}; }

  void happen() {
    Forwarder& one = forwarders_[random_() % kForwarders];
    switch (random_() % 5) {
      case 0:
        one.managed = !one.managed;
        break;
      case 1:
        one.link = !one.link;
        if (one.link) one.start_announcing();
        break;
      case 2:
        one.alive = !one.alive;
        if (one.alive) one.left = LeftVips(now_ns_);
        one.held = false;
        break;
      default:
        decided_ = one.number;
    }
  }
  void run_ms(uint64_t ms) {
    for (const uint64_t end = now_ns_ + ms * kNsPerMs; now_ns_ < end; now_ns_ += kStepMs * kNsPerMs) {
      for (Forwarder& each : forwarders_) {
        if (each.alive) step(each);
      }
    }
  }
  void step(Forwarder& one) {
    if (one.managed) one.opinion = decided_;
    one.left.on_control(one.managed, now_ns_);
    const uint64_t ms = now_ns_ / kNsPerMs;
    if (ms % 500 == 100 * one.number) {
      one.left.settle(
          [](const Mac& mac) {
            return mac.bytes[4] == 1 ? "forwarder " + std::to_string(mac.bytes[5]) : std::string();
          },
          one.number, now_ns_);
    }
    if (one.holds() && !std::exchange(one.held, one.holds())) one.start_announcing();
    one.held = one.holds();
    if (!one.link) return;
    if (one.holds() && one.announcements > 0 && now_ns_ - one.announced_ns >= 1'000 * kNsPerMs) {
      --one.announcements;
      one.announced_ns = now_ns_;
      claim(one);
    }
    // What VipAsker does: held and left addresses are asked for once a second.
    if (one.left.alone() && one.opinion == one.number && ms % 1'000 == 100 * one.number) {
      for (const Forwarder& other : forwarders_) {
        if (other.number != one.number && other.on_link() && other.holds() && !is_lost()) hear(one, other);
      }
    }
  }
  void claim(const Forwarder& by) {
    for (Forwarder& each : forwarders_) {
      if (each.number != by.number && each.on_link() && !is_lost()) hear(each, by);
    }
  }
  void hear(Forwarder& one, const Forwarder& by) {
    if (one.holds() || !one.left.left().empty()) one.left.on_claim({ip("10.0.0.100"), mac_of(by.number), 0}, now_ns_);
    const bool may_defend = one.defended_ns == 0 || now_ns_ - one.defended_ns >= 10'000 * kNsPerMs;
    if (!one.holds() || !may_defend) return;
    one.defended_ns = now_ns_;
    claim(one);
  }
  bool is_lost() { return random_() % 10 == 0; }

  std::mt19937_64 random_;
  std::vector<Forwarder> forwarders_;
  uint32_t decided_ = 0;
  uint64_t now_ns_ = 1'000 * kNsPerMs;
};

TEST(LeftVips, WhateverHappensOneHoldsItAfterSomeQuiet) {
  size_t decided = 0, taken_back = 0;
  for (uint64_t seed = 0; seed < 500; ++seed) {
    Link link(seed);
    link.run(static_cast<int>(seed % 12));
    const std::vector<uint32_t> holders = link.holders();
    ASSERT_LE(holders.size(), 1u) << "seed " << seed << ": " << link.tell();
    if (link.decided_holder_serves()) {
      ++decided;
      ASSERT_EQ(holders, std::vector<uint32_t>{link.decided()}) << "seed " << seed << ": " << link.tell();
    } else if (link.somebody_must_hold()) {
      ++taken_back;
      ASSERT_EQ(holders.size(), 1u) << "seed " << seed << ": " << link.tell();
    }
  }
  EXPECT_GT(decided, 50u);
  EXPECT_GT(taken_back, 20u) << "those that were cut off serve on";
}

TEST(VipAsker, AsksForAllInRoundsThatTheBoardCanTake) {
  struct Sink final : FrameSink {
    void send(uint16_t, const uint8_t* frame, size_t bytes) override { sent.emplace_back(frame, frame + bytes); }
    std::vector<Bytes> sent;
  } sink;
  for (const size_t count : {size_t{1}, size_t{3}, VipAsker::kPortion + 1, 5 * VipAsker::kPortion}) {
    auto set = std::make_shared<LocalSet>();
    for (size_t i = 0; i < count; ++i) {
      set->asked.push_back({ip(i % 2 == 0 ? "10.0.0.100" : "fd00::100"), LocalKind::standby, 0, 0});
    }
    VipAsker asker({PortIdentity{kOurMac, {{ip("10.0.0.2"), 24}, {ip("fd00::2"), 64}}}});
    asker.adopt(set, 0);
    const auto run = [&](uint32_t from_ms, uint32_t to_ms) {
      sink.sent.clear();
      for (uint32_t ms = from_ms; ms < to_ms; ++ms) asker.tick(ms, 16, sink);
      return sink.sent.size();
    };
    const uint32_t round_ms = VipAsker::round_ms(count);
    EXPECT_GE(round_ms, 1'000u);
    EXPECT_EQ(run(0, round_ms - 50), count);
    EXPECT_EQ(run(round_ms - 50, 10 * round_ms - 50), 9 * count) << "once in each round";
    EXPECT_LE(run(10 * round_ms - 50, 10 * round_ms + 450), VipAsker::kPortion);
  }
  EXPECT_EQ(sink.sent.front(), arp(1, kOurMac, "10.0.0.2", Mac{}, "10.0.0.100", kBroadcastMac));
}

TEST_F(DeciderTest, AsksForAnAddressThatItLeftAndTellsWhoAnswers) {
  DeciderConfig config;
  ConflictBoard conflicts;
  config.conflicts = &conflicts;
  restart(config);
  for (uint32_t end = now_ms_ + 4'000; now_ms_ < end; now_ms_ += 50) decider_->tick(now_ms_, *this);
  const Bytes question = arp(1, kRouterMac, "10.0.0.1", Mac{}, "10.0.0.100", kBroadcastMac);
  const Bytes ours = arp(1, kOurMac, "10.0.0.2", Mac{}, "10.0.0.100", kBroadcastMac);
  const Bytes answer = arp(2, kOther, "10.0.0.100", kOurMac, "10.0.0.2", kOurMac);
  Node other = edge_.model.nodes[0];
  other.name = "other";
  other.l4.ports[0].addresses = {{ip("10.0.0.3"), 24}, {ip("fd00::3"), 64}};
  edge_.model.nodes.push_back(other);
  Outages outages;
  outages.alone = true;
  outages.left = {{ip("10.0.0.100"), "other"}, {ip("fd00::100"), "other"}};
  tables_ = edge_.tables(outages);
  decider_->adopt(*tables_, now_ms_);
  tell(ip("10.0.0.3"), kOther);
  EXPECT_EQ(decider_->neighbours().mac_of(ip("10.0.0.3")), kOther) << "so its claims are known";
  EXPECT_EQ(decider_->neighbours().mac_of(ip("10.0.0.4")), Mac{});
  EXPECT_NE(decide(question).outcome.verdict, FrameVerdict::answer);
  sent_.clear();
  for (uint32_t end = now_ms_ + 4'000; now_ms_ < end; now_ms_ += 50) decider_->tick(now_ms_, *this);
  EXPECT_EQ(std::count(sent_.begin(), sent_.end(), ours), 4) << "once a second";
  EXPECT_EQ(decide(answer).outcome.verdict, FrameVerdict::consume);
  const std::vector<AddressConflict> told = conflicts.take();
  ASSERT_EQ(told.size(), 1u);
  EXPECT_EQ(told[0].claimed_by, kOther);
  EXPECT_EQ(backend_of(tcp_frame("192.0.2.7", 1, "10.0.0.100", 80, kTcpSyn)) >= 0, true)
      << "who does not know the other one yet is served";
  publish();
  EXPECT_EQ(decide(question).outcome.verdict, FrameVerdict::answer) << "taken back";
  const Bytes announced = arp(1, kOurMac, "10.0.0.100", Mac{}, "10.0.0.100", kBroadcastMac);
  sent_.clear();
  decider_->tick(now_ms_, *this);
  EXPECT_EQ(std::count(sent_.begin(), sent_.end(), announced), 1);
}

TEST_F(DeciderTest, DefendsManyAddressesWithoutTooManyFramesAtOnce) {
  edge_.model.vips[0].addresses.clear();
  for (int i = 0; i < 100; ++i) edge_.model.vips[0].addresses.push_back(ip("10.0.0." + std::to_string(100 + i)));
  publish();
  for (uint32_t end = now_ms_ + 4'000; now_ms_ < end; now_ms_ += 10) decider_->tick(now_ms_, *this);
  for (const IpAddress& vip : edge_.model.vips[0].addresses) {
    EXPECT_EQ(reason_for(arp(2, kOther, vip.to_string(), kOther, vip.to_string(), kBroadcastMac)),
              DropReason::vip_conflict);
  }
  sent_.clear();
  decider_->tick(now_ms_, *this);
  EXPECT_LE(sent_.size(), Neighbours::kMaxFramesPerTick);
  decider_->tick(++now_ms_, *this);
  EXPECT_EQ(sent_.size(), 100u);
}

}  // namespace tidegate::l4::left_vips_test
