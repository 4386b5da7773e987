// SPDX-License-Identifier: Apache-2.0
// The bounds for one connection in one round of the loop, and the count of frames.
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <random>
#include <string>

#include "core/clock.h"
#include "l7/h2/conduct.h"
#include "l7/h2/wake_list.h"
#include "l7/h2/walk.h"
#include "l7/wire/transport.h"

namespace tidegate::l7::turn_test {

// --- WakeList

struct Sleeper {
  bool awake_ = false;
};

TEST(WakeLists, EachIsTakenOnceInOrderAlsoIfOthersLeaveOrAreAddedMeanwhile) {
  WakeList<Sleeper> list;
  Sleeper a, b, c;
  EXPECT_EQ(list.take(), nullptr);
  for (Sleeper* one : {&a, &b, &a, &c}) list.add(*one);
  EXPECT_EQ(list.size(), 3u);
  EXPECT_EQ(list.take(), &a);
  EXPECT_FALSE(a.awake_);
  list.remove(b);
  list.remove(b);
  list.add(a);
  EXPECT_EQ(list.take(), &c);
  EXPECT_EQ(list.take(), &a);
  EXPECT_TRUE(list.empty());
  list.add(b);
  list.remove(b);
  EXPECT_EQ(list.take(), nullptr);
  EXPECT_TRUE(list.empty());
}

TEST(WakeLists, ThatAreNeverEmptyDoNotGrow) {
  WakeList<Sleeper> list;
  Sleeper sleepers[3];
  for (Sleeper& one : sleepers) list.add(one);
  for (int i = 0; i < 10'000; ++i) {
    EXPECT_EQ(list.take(), &sleepers[i % 3]);
    list.add(sleepers[i % 3]);
  }
  EXPECT_EQ(list.size(), 3u);
  EXPECT_LE(list.room(), 256u);
}

// --- BlockQueue

TEST(BlockQueues, BytesComeOutAsTheyWentInWhateverTheirPieces) {
  BlockPool pool;
  BlockQueue queue(pool);
  std::mt19937 random(7);
  std::string expected, got;
  for (int round = 0; round < 400; ++round) {
    const size_t most = round % 2 == 0 ? 100'000 : 6'000;  // small blocks too
    const std::string piece(random() % most, static_cast<char>('a' + random() % 26));
    queue.append(piece);
    expected += piece;
    for (size_t left = random() % 200'000; left > 0 && queue.bytes() > 0;) {
      const size_t now = std::min(left, queue.front().size());
      got += queue.front().substr(0, now);
      queue.sent(now);
      left -= now;
    }
    EXPECT_EQ(queue.bytes(), expected.size() - got.size());
  }
  while (queue.bytes() > 0) {
    got += queue.front();
    queue.sent(queue.front().size());
  }
  EXPECT_TRUE(got == expected);
  EXPECT_TRUE(queue.front().empty());
  queue.append("x");
  queue.clear();
  queue.append("y");
  EXPECT_EQ(queue.front(), "y");
}

// --- ProxyTransport

struct Reader final : IoHandler {
  Reader(EventLoop& loop, UniqueFd fd) : transport(loop, blocks), in(blocks) {
    EXPECT_TRUE(transport.open(std::move(fd), this));
  }
  void on_io(uint32_t events) override {
    transport.note(events);
    size_t now = 0;
    while (transport.fill(in) == ProxyTransport::Status::ok) {
      now += in.bytes().size();
      in.consume(in.bytes().size());
    }
    most = std::max(most, now);
    total += now;
    if (now > 0) ++turns;
  }
  BlockPool blocks;
  ProxyTransport transport;
  InBuffer in;
  size_t most = 0, total = 0, turns = 0;
};

TEST(Turns, ASocketIsReadATurnARoundHoweverMuchItHolds) {
  EventLoop loop;
  int fds[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
  UniqueFd peer(fds[1]);
  const int room = 8 << 20;
  if (::setsockopt(peer.get(), SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof room) != 0) GTEST_SKIP() << "only for root";
  const std::string chunk(65536, 'x');
  size_t sent = 0;
  for (ssize_t now; sent < (2 << 20) && (now = ::send(peer.get(), chunk.data(), chunk.size(), 0)) > 0;) {
    sent += static_cast<size_t>(now);
  }
  ASSERT_GT(sent, 4 * kTurnBytes);
  Reader reader(loop, UniqueFd(fds[0]));
  for (int round = 0; round < 100 && reader.total < sent; ++round) loop.run_once(0);
  EXPECT_EQ(reader.total, sent);
  EXPECT_LT(reader.most, kTurnBytes + kBlockBytes);
  EXPECT_GE(reader.turns, sent / (kTurnBytes + kBlockBytes));
}

// --- frames

std::string frame(uint8_t type, size_t bytes) {
  std::string out{static_cast<char>(bytes >> 16), static_cast<char>(bytes >> 8), static_cast<char>(bytes),
                  static_cast<char>(type)};
  return out + std::string(5 + bytes, '\0');
}

TEST(Http2Walk, FindsTheSameFramesHoweverTheBytesAreSplit) {
  std::mt19937 random(1);
  std::string input(24, 'p');
  for (int i = 0; i < 200; ++i) input += frame(8, random() % 3 == 0 ? 0 : random() % 300);
  for (int run = 0; run < 50; ++run) {
    Http2Walk walk;
    Http2Conduct conduct;
    uint64_t frames = 1000;
    for (size_t at = 0; at < input.size();) {
      const std::string_view piece = std::string_view(input).substr(at, 1 + random() % 400);
      ASSERT_EQ(walk.next(piece, frames, conduct), piece.size());
      at += piece.size();
    }
    EXPECT_EQ(frames, 800u);
  }
}

TEST(Http2Walk, StopsBeforeAFrameTooMany) {
  const std::string two = frame(6, 8) + frame(0, 100), input = std::string(24, 'p') + two + two;
  Http2Walk walk;
  Http2Conduct conduct;
  uint64_t frames = 2;
  EXPECT_EQ(walk.next(input, frames, conduct), 24 + two.size());
  EXPECT_EQ(walk.next(two, frames, conduct), 0u);
  frames = 2;
  EXPECT_EQ(walk.next(two, frames, conduct), two.size());
}

// --- conduct

TEST(Http2Conduct, FramesForTheirOwnSakeHaveALimitAndTimeRestoresSome) {
  Http2Conduct conduct;
  uint64_t now_ns = 1000 * kNsPerS;
  conduct.refill(now_ns);
  for (uint32_t i = 0; i < kHttp2IdleFrames; ++i) conduct.on_frame(0);
  EXPECT_EQ(conduct.fault(), Http2Fault::none);
  conduct.on_frame(0);
  EXPECT_EQ(conduct.fault(), Http2Fault::idle_frames);
  conduct.refill(now_ns += kNsPerS);
  for (uint32_t i = 1; i < kHttp2IdleFramesPerSecond; ++i) conduct.on_frame(0);
  EXPECT_EQ(conduct.fault(), Http2Fault::none);
}

TEST(Http2Conduct, WhatMovesARequestOnPaysForItsFrames) {
  Http2Conduct conduct;
  for (int i = 0; i < 100'000; ++i) {
    conduct.on_data_frame();
    conduct.on_content_received();
    conduct.on_frame(0);  // two window updates
    conduct.on_frame(0);
    conduct.on_content_sent(200, false);
    ASSERT_EQ(conduct.fault(), Http2Fault::none) << i;
  }
}

TEST(Http2Conduct, ResetsHaveABurstAndARate) {
  Http2Conduct conduct;
  uint64_t now_ns = 1000 * kNsPerS;
  conduct.refill(now_ns);
  for (uint32_t i = 0; i < kHttp2ResetBurst; ++i) conduct.on_reset();
  for (int second = 0; second < 100; ++second) {
    conduct.refill(now_ns += kNsPerS);
    for (uint32_t i = 0; i < kHttp2ResetsPerSecond; ++i) conduct.on_reset();
    ASSERT_EQ(conduct.fault(), Http2Fault::none);
  }
  conduct.on_reset();
  EXPECT_EQ(conduct.fault(), Http2Fault::resets);
}

}  // namespace tidegate::l7::turn_test
