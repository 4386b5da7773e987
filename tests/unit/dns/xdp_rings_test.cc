// SPDX-License-Identifier: Apache-2.0
// The circulation of frames. The test stands in for the kernel at the other ends of the four rings.
#include "dns/xdp/rings.h"

#include <gtest/gtest.h>

#include <deque>
#include <memory>
#include <random>
#include <vector>

namespace tidegate::dns::test::xdp_rings_test {

constexpr uint32_t kFrames = XdpRings::kFrames;
constexpr uint64_t kReceiveOffset = 256;

// The memory of one ring, and both of its ends.
template <class Entry>
struct SharedRing {
  std::vector<Entry> entries = std::vector<Entry>(kFrames);
  uint32_t producer = 0, consumer = 0, flags = 0;

  template <class Ring>
  void give_to(Ring& ring, uint32_t cached_consumer) {
    ring = {0, cached_consumer, kFrames - 1, kFrames, &producer, &consumer, entries.data(), &flags};
  }
  uint32_t waiting() const { return producer - consumer; }
  void push(const Entry& entry) {
    ASSERT_LT(waiting(), kFrames) << "a ring ran over";
    entries[producer++ % kFrames] = entry;
  }
  Entry pop() { return entries[consumer++ % kFrames]; }
};

class Rings : public ::testing::Test {
 protected:
  Rings() {
    fill_.give_to(rings_.fill, kFrames);
    to_send_.give_to(rings_.to_send, kFrames);
    completion_.give_to(rings_.completion, 0);
    received_.give_to(rings_.received, 0);
    rings_.memory = memory_.data();
    rings_.hand_out_frames();
  }

  // The kernel's side:
  void receive(uint32_t count) {
    for (; count > 0 && fill_.waiting() > 0; --count) received_.push({fill_.pop() + kReceiveOffset, 60, 0});
  }
  void send(uint32_t count) {
    for (; count > 0 && to_send_.waiting() > 0; --count) completion_.push(to_send_.pop().addr);
  }

  // Every frame must be in exactly one place.
  void expect_all_frames() {
    std::vector<int> seen(kFrames);
    const auto look = [&](uint64_t address) { ++seen[address / XdpRings::kFrameBytes]; };
    for (uint32_t i = fill_.consumer; i != fill_.producer; ++i) look(fill_.entries[i % kFrames]);
    for (uint32_t i = completion_.consumer; i != completion_.producer; ++i) look(completion_.entries[i % kFrames]);
    for (uint32_t i = received_.consumer; i != received_.producer; ++i) look(received_.entries[i % kFrames].addr);
    for (uint32_t i = to_send_.consumer; i != to_send_.producer; ++i) look(to_send_.entries[i % kFrames].addr);
    ASSERT_EQ(seen, std::vector<int>(kFrames, 1));
  }

  std::vector<uint8_t> memory_ = std::vector<uint8_t>(XdpRings::kMemoryBytes);
  SharedRing<uint64_t> fill_, completion_;
  SharedRing<xdp_desc> received_, to_send_;
  XdpRings rings_;
};

TEST_F(Rings, HandOutEveryFrame) {
  EXPECT_EQ(fill_.waiting(), kFrames);
  expect_all_frames();
}

TEST_F(Rings, AnAnswerIsSentFromWhereItsQueryStood) {
  receive(1);
  const auto answer = [&](std::span<uint8_t> room, size_t bytes) {
    EXPECT_EQ(room.data(), memory_.data() + kReceiveOffset);
    EXPECT_EQ(room.size(), XdpRings::kFrameBytes - kReceiveOffset);
    EXPECT_EQ(bytes, 60U);
    return size_t{99};
  };
  EXPECT_EQ(rings_.serve(answer), 1U);
  EXPECT_EQ(rings_.unsent(), 1U);
  EXPECT_TRUE(rings_.looks_again());
  const xdp_desc sent = to_send_.entries[0];
  EXPECT_EQ(sent.addr, kReceiveOffset);
  EXPECT_EQ(sent.len, 99U);
  EXPECT_EQ(rings_.serve(answer), 0U);
  send(1);
  EXPECT_FALSE(rings_.looks_again()) << "one frame under way is no reason to wake";
}

TEST_F(Rings, NoFrameIsEverLostWhateverTheKernelDoes) {
  std::mt19937 random(1);
  const auto below = [&](uint32_t limit) { return static_cast<uint32_t>(random() % limit); };
  uint64_t served = 0;
  for (int turn = 0; turn < 20'000; ++turn) {
    // Bursts and pauses in each direction, including a link that stands still.
    receive(below(turn % 7 == 0 ? kFrames + 1 : 100));
    if (turn / 500 % 3 != 0) send(below(turn % 5 == 0 ? kFrames + 1 : 100));
    rings_.recycle();
    served += rings_.serve([&](std::span<uint8_t>, size_t) { return below(3) == 0 ? size_t{0} : size_t{80}; });
    if (turn % 50 == 0) expect_all_frames();
    if (HasFatalFailure()) return;
  }
  expect_all_frames();
  EXPECT_GT(served, uint64_t{kFrames} * 100);
  // All frames must come back: while too few are left to receive into, the rings ask to be checked again.
  while (rings_.serve([](std::span<uint8_t>, size_t) { return size_t{80}; }) > 0) {
  }
  receive(kFrames);
  while (rings_.serve([](std::span<uint8_t>, size_t) { return size_t{80}; }) > 0) {
  }
  send(kFrames);
  EXPECT_EQ(rings_.unsent(), 0U);
  EXPECT_TRUE(rings_.looks_again());
  rings_.recycle();
  EXPECT_FALSE(rings_.looks_again());
  EXPECT_EQ(fill_.waiting(), kFrames);
}

}  // namespace tidegate::dns::test::xdp_rings_test
