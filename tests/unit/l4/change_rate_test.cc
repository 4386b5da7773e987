// SPDX-License-Identifier: Apache-2.0
// A pool's backends change a thousand times a second while workers forward: whole tables are built, published and
// adopted. No packet of an established flow is lost or goes elsewhere, and all counters add up to the packet.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <thread>

#include "conf/model.h"
#include "conf/model/node.h"
#include "conf/model/pool.h"
#include "conf/model/service.h"
#include "core/clock.h"
#include "l4/decider.h"
#include "l4/publish.h"
#include "tests/unit/l4/edge.h"

namespace tidegate::l4::change_rate_test {

using testing::Bytes;
using testing::ip;
using testing::kOurMac;

constexpr uint32_t kWorkers = 2;
// The first backends are drained and weighted, but keep their flows. Those after them go down and come up. Further ones
// are added and removed.
constexpr size_t kKept = 16, kFailing = 4, kAdded = 4;
constexpr size_t kEstablished = 1'000, kPassing = 4'000;  // flows of a worker
constexpr size_t kEstablishedOfBurst = 48, kPassingOfBurst = 16;
constexpr size_t kRoom = 128;

uint32_t now_ms() { return static_cast<uint32_t>(monotonic_ns() / kNsPerMs); }

IpAddress address_of(size_t backend, bool v4) {
  return ip(v4 ? fmt::format("10.0.0.{}", 11 + backend) : fmt::format("fd00::{:x}", 11 + backend));
}

Mac mac_of(uint8_t last_byte_of_address) { return {{0x02, 0, 0, 0, 0, last_byte_of_address}}; }

class ChangingEdge : public testing::Edge {
 public:
  ChangingEdge() {
    model.nodes[0].l4.maglev_slots = 251;
    model.pools[0].backends.clear();
    for (size_t i = 0; i < kKept + kFailing; ++i) add(i);
    for (size_t i = kKept; i < kKept + kFailing; ++i) say(i, OverrideState::down);
  }

  // The change number `n`, one of each kind in turn.
  void change(size_t n) {
    const size_t turn = n / 4;
    switch (n % 4) {
      case 0:
        backend(turn * 7 % kKept).weight = 1 + static_cast<uint32_t>(turn % 5);
        break;
      case 1:  // never more than half of them are drained
        toggle(turn % (kKept / 2), OverrideState::drained);
        break;
      case 2:
        toggle(kKept + turn % kFailing, OverrideState::down);
        break;
      default:
        if (model.pools[0].backends.size() < kKept + kFailing + kAdded) {
          add(model.pools[0].backends.size());
        } else {
          model.pools[0].backends.resize(kKept + kFailing);
        }
    }
  }

 private:
  void add(size_t index) {
    Backend backend;
    backend.name = fmt::format("web{}", index + 1);
    backend.addresses = {address_of(index, true), address_of(index, false)};
    model.pools[0].backends.push_back(backend);
  }
  void toggle(size_t index, OverrideState state) {
    if (live_state.overrides.erase(backend_key("web", backend(index).name)) == 0) say(index, state);
  }
};

// One flow's next packet, and where it must go.
struct Flow {
  Bytes frame;
  std::optional<Mac> backend;
};

class ChangeWorker final : public FrameSink {
 public:
  ChangeWorker(uint32_t number, Publisher& publisher) : number_(number), publisher_(publisher) {
    DeciderConfig config;
    config.hasher = FlowHasher(testing::kFlowKey);
    PortIdentity port{kOurMac, {{ip("10.0.0.2"), 24}, {ip("fd00::2"), 64}}};
    port.mtu = 1'500;
    config.ports = {port};
    config.flows = 16'384;
    decider_ = std::make_unique<Decider>(std::move(config), *counters_);
    for (size_t i = 0; i < kEstablished; ++i) established_.push_back(flow(i, 0x10));
    for (size_t i = 0; i < kPassing; ++i) passing_.push_back(flow(kEstablished + i, 0x02));
  }

  // Begins the established flows. Call before the backends change.
  void establish() {
    adopt();
    while (counters_->neighbours_resolved.value() < 2 * (kKept + kFailing)) tick();
    for (size_t i = 0; i < kEstablished; ++i) {
      for (const uint8_t flags : {uint8_t{0x02}, uint8_t{0x10}}) {
        Flow begun = flow(i, flags);
        Flow* const one = &begun;
        decide(&one, 1);
        ASSERT_EQ(outcomes_[0].verdict, FrameVerdict::forward) << "flow " << i;
        established_[i].backend = Mac::from(frames_[0].data);
      }
    }
  }

  void run(const std::atomic<bool>& stop) {
    while (!stop.load(std::memory_order_relaxed)) {
      publisher_.online(number_);
      for (size_t burst = 0; burst < 8; ++burst) {
        adopt();
        forward();
        publisher_.quiescent(number_);
      }
      tick();
      publisher_.offline(number_);
      std::this_thread::yield();
    }
  }

  void send(uint16_t, const uint8_t* frame, size_t bytes) override { sent_.emplace_back(frame, frame + bytes); }

  uint64_t misrouted = 0, lost = 0;  // packets of established flows
  uint64_t given = 0, forwarded = 0, dropped = 0, others = 0;
  const WorkerCounters& counters() const { return *counters_; }
  uint64_t adopted() const { return adopted_; }

 private:
  // Half of the flows are TCP, and half of each kind are of IPv6. Those of UDP have no flags.
  Flow flow(size_t index, uint8_t flags) const {
    const auto port = static_cast<uint16_t>(1'024 + index);
    const bool is_tcp = index % 2 == 0, v4 = index / 2 % 2 == 0;
    const Bytes segment = is_tcp ? testing::tcp(port, 80, flags) : testing::udp(port, 53);
    const uint8_t protocol = is_tcp ? 6 : 17;
    const IpAddress client = ip(v4 ? fmt::format("192.0.2.{}", 1 + number_) : fmt::format("2001:db8::{}", 1 + number_));
    const Bytes packet = v4 ? testing::ip4(client, ip("10.0.0.100"), protocol, segment)
                            : testing::ip6(client, ip("fd00::100"), protocol, segment);
    return {testing::ethernet(v4 ? kEtherTypeIp4 : kEtherTypeIp6, packet), {}};
  }

  void adopt() {
    tables_ = publisher_.current();
    if (tables_->generation == generation_) return;
    ASSERT_GT(tables_->generation, generation_);
    generation_ = tables_->generation;
    decider_->adopt(*tables_, now_ms());
    ++adopted_;
  }

  void forward() {
    std::array<Flow*, kBurst> flows;
    size_t count = 0;
    while (count < kEstablishedOfBurst) flows[count++] = &established_[next_++ % kEstablished];
    while (count < kEstablishedOfBurst + kPassingOfBurst) flows[count++] = &passing_[next_passing_++ % kPassing];
    decide(flows.data(), count);
    for (size_t i = 0; i < count; ++i) {
      const FrameOutcome& outcome = outcomes_[i];
      forwarded += outcome.verdict == FrameVerdict::forward ? 1 : 0;
      dropped += outcome.verdict == FrameVerdict::drop ? 1 : 0;
      if (!flows[i]->backend) continue;
      if (outcome.verdict != FrameVerdict::forward) {
        ++lost;
      } else if (Mac::from(frames_[i].data) != *flows[i]->backend) {
        ++misrouted;
      }
    }
    given += count;
  }

  void decide(Flow* const* flows, size_t count) {
    for (size_t i = 0; i < count; ++i) put(i, flows[i]->frame);
    decider_->decide(*tables_, frames_.data(), outcomes_.data(), count, now_ms());
  }

  void put(size_t i, const Bytes& frame) {
    std::memcpy(buffers_[i].data() + kRoom, frame.data(), frame.size());
    frames_[i] = {};
    frames_[i].data = buffers_[i].data() + kRoom;
    frames_[i].bytes = static_cast<uint32_t>(frame.size());
    frames_[i].capacity = static_cast<uint32_t>(buffers_[i].size() - kRoom);
    frames_[i].headroom = kRoom;
  }

  // Each backend answers questions for its addresses at once.
  void tick() {
    adopt();  // the tables of the last burst may be gone
    decider_->tick(now_ms(), *this);
    for (const Bytes& frame : std::exchange(sent_, {})) answer(frame);
  }

  void answer(const Bytes& frame) {
    const bool is_arp = frame.size() >= 42 && frame[12] == 0x08 && frame[13] == 0x06 && frame[21] == 1;
    const bool is_solicitation = frame.size() >= 78 && frame[12] == 0x86 && frame[13] == 0xdd && frame[54] == 135;
    if (!is_arp && !is_solicitation) return;
    const uint8_t last = is_arp ? frame[41] : frame[77];
    if (last < 11 || last >= 11 + kKept + kFailing + kAdded) return;
    const Mac mac = mac_of(last);
    Bytes reply;
    if (is_arp) {
      reply = testing::arp(2, mac, address_of(last - 11u, true).to_string(), kOurMac, "10.0.0.2", kOurMac);
    } else {
      const IpAddress address = address_of(last - 11u, false);
      Bytes body = {0x60, 0, 0, 0};
      testing::append_address(body, address);
      testing::append(body, {2, 1});
      body.insert(body.end(), mac.bytes.begin(), mac.bytes.end());
      reply =
          testing::ethernet(kEtherTypeIp6, testing::icmp6_packet(address, ip("fd00::2"), 136, body, 255), kOurMac, mac);
    }
    put(0, reply);
    decider_->decide(*tables_, frames_.data(), outcomes_.data(), 1, now_ms());
    ++others;
    ASSERT_EQ(outcomes_[0].verdict, FrameVerdict::consume);
  }

  uint32_t number_;
  Publisher& publisher_;
  std::unique_ptr<WorkerCounters> counters_ = std::make_unique<WorkerCounters>();
  std::unique_ptr<Decider> decider_;
  const ForwardingTables* tables_ = nullptr;
  uint64_t generation_ = 0, adopted_ = 0;
  std::vector<Flow> established_, passing_;
  size_t next_ = 0, next_passing_ = 0;
  std::vector<std::vector<uint8_t>> buffers_{kBurst, std::vector<uint8_t>(kRoom + 256)};
  std::array<Frame, kBurst> frames_;
  std::array<FrameOutcome, kBurst> outcomes_;
  std::vector<Bytes> sent_;
};

void expect_sums(const ChangeWorker& worker) {
  const WorkerCounters& counters = worker.counters();
  uint64_t by_service = 0, by_backend = 0, by_reason = 0;
  for (const ServiceCounters& service : counters.services) by_service += service.forwarded.packets.value();
  for (const Traffic& backend : counters.backends.forwarded) by_backend += backend.packets.value();
  for (const OwnedCounter& reason : counters.dropped_packets) by_reason += reason.value();
  EXPECT_EQ(worker.forwarded + worker.dropped, worker.given);
  constexpr uint64_t kBegun = 2 * kEstablished;
  EXPECT_EQ(by_service, worker.forwarded + kBegun);
  EXPECT_EQ(by_backend, worker.forwarded + kBegun);
  EXPECT_EQ(by_reason, worker.dropped);
  EXPECT_EQ(counters.consumed_packets.value(), worker.others);
}

void change_for(std::chrono::seconds time) {
  ChangingEdge edge;
  Publisher publisher(kWorkers);
  publisher.publish(edge.tables());
  std::vector<std::unique_ptr<ChangeWorker>> workers;
  for (uint32_t number = 0; number < kWorkers; ++number) {
    workers.push_back(std::make_unique<ChangeWorker>(number, publisher));
    workers.back()->establish();
  }
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (const auto& worker : workers) threads.emplace_back([&stop, &worker] { worker->run(stop); });

  // A slower machine, or a build with sanitizers, makes fewer in the same time.
  const auto begin = std::chrono::steady_clock::now();
  size_t changes = 0;
  for (auto now = begin; now < begin + time; now = std::chrono::steady_clock::now()) {
    edge.change(changes++);
    std::shared_ptr<const ForwardingTables> tables = edge.tables();
    ASSERT_TRUE(tables);
    publisher.publish(std::move(tables));
    std::this_thread::sleep_until(begin + std::chrono::milliseconds(changes));
  }
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  stop = true;
  for (std::thread& thread : threads) thread.join();

  uint64_t given = 0, refused = 0, adopted = 0;
  for (const auto& worker : workers) {
    EXPECT_EQ(worker->lost, 0U);
    EXPECT_EQ(worker->misrouted, 0U);
    EXPECT_GT(worker->given, 10 * changes) << "it forwarded meanwhile";
    EXPECT_GT(worker->forwarded, worker->given * 9 / 10);
    expect_sums(*worker);
    given += worker->given;
    refused += worker->dropped;
    adopted += worker->adopted();
  }
  const std::string told = fmt::format("{} changes in {:.2f} s, {} packets, {} of passing flows dropped, {} adopted",
                                       changes, took.count(), given, refused, adopted);
  ::testing::Test::RecordProperty("told", told);
  EXPECT_GT(changes, 4U) << told;  // with sanitizers, on a busy machine
}

TEST(Changes, AThousandASecondCostNoPacketOfAnEstablishedFlow) { change_for(std::chrono::seconds(2)); }

TEST(LongChanges, AThousandASecondCostNoPacketOfAnEstablishedFlowInFiveSeconds) { change_for(std::chrono::seconds(5)); }

TEST(LongChanges, AThousandASecondCostNoPacketOfAnEstablishedFlowInAMinute) { change_for(std::chrono::seconds(60)); }

}  // namespace tidegate::l4::change_rate_test
