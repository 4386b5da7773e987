// SPDX-License-Identifier: Apache-2.0
// The board of probes between threads: each order has exactly one end, whoever is faster. Also run under TSan.
#include "l4/probe/board.h"

#include <gtest/gtest.h>

#include <thread>

#include "tests/unit/l4/frames.h"

namespace tidegate::l4::testing::probe_board_test {

// The backend answers each SYN at once, on a thread of its own.
class Segment final : public FrameSink {
 public:
  explicit Segment(ProbeBoard& board) : board_(board) {}
  void send(uint16_t, const uint8_t* frame, size_t) override {
    const uint8_t* const segment = frame + kEthernetBytes + kIp4HeaderBytes;
    Bytes answer = tcp_frame("10.0.0.100", load_be16(segment + 2), "10.0.0.2", load_be16(segment), kTcpSyn | kTcpAck);
    store_be32(answer.data() + kEthernetBytes + kIp4HeaderBytes + 8, load_be32(segment + 4) + 1);
    const size_t at = written_.load(std::memory_order_relaxed);
    answers_[at % answers_.size()] = std::move(answer);
    written_.store(at + 1, std::memory_order_release);
  }
  void answer_until(const std::atomic<bool>& stop) {
    for (size_t at = 0; !stop.load(std::memory_order_acquire);) {
      if (at == written_.load(std::memory_order_acquire)) {
        std::this_thread::yield();
        continue;
      }
      Bytes frame = answers_[at++ % answers_.size()];
      PacketView view;
      ASSERT_EQ(parse_frame(frame.data(), frame.size(), view), DropReason::none);
      auto bytes = static_cast<uint32_t>(frame.size());
      frame.resize(128);
      board_.take(frame.data(), bytes, 128, view);
    }
  }

 private:
  ProbeBoard& board_;
  std::array<Bytes, 4'096> answers_;  // more than are ordered
  std::atomic<size_t> written_{0};
};

TEST(ProbeBoardThreads, EachOrderHasOneEndWhoeverIsFaster) {
  constexpr size_t kOrders = 400;
  ProbeBoard board;
  Segment segment(board);
  const std::vector<PortIdentity> ports = {PortIdentity{kOurMac, {{ip("10.0.0.2"), 24}}}};
  Neighbours neighbours(ports);
  neighbours.set_targets(
      std::make_shared<NeighbourSet>(std::vector<NeighbourTarget>{{NeighbourId{0}, ip("10.0.0.11"), 0}}), 1);
  neighbours.learn(ip("10.0.0.11"), {{2, 0, 0, 0, 0, 0x11}}, 1);
  std::atomic<bool> stop{false};
  std::thread sender([&] {
    while (!stop.load(std::memory_order_acquire)) board.send_due(neighbours, ports, 8, segment);
  });
  std::thread receiver([&] { segment.answer_until(stop); });
  size_t answered = 0, cancelled = 0;
  for (size_t i = 0; i < kOrders; ++i) {
    const std::optional<uint16_t> slot = board.order({.vip = ip("10.0.0.100"),
                                                      .port = 443,
                                                      .neighbour = NeighbourId{0},
                                                      .sequence = static_cast<uint32_t>(i * 7),
                                                      .payload = {}});
    ASSERT_TRUE(slot);
    std::optional<ProbeBoard::Done> done;
    if (i % 2 == 0) {  // it is awaited
      while (!(done = board.take_done(*slot))) std::this_thread::yield();
    } else {  // its time is over before, or just while, the answer comes
      done = board.cancel(*slot);
    }
    if (done) {
      EXPECT_EQ(done->end, ProbeEnd::answered);
      ++answered;
    } else {
      ++cancelled;
    }
  }
  stop.store(true, std::memory_order_release);
  sender.join();
  receiver.join();
  EXPECT_GE(answered, kOrders / 2);
  EXPECT_EQ(answered + cancelled, kOrders);
}

}  // namespace tidegate::l4::testing::probe_board_test
