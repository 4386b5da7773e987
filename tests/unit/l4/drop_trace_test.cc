// SPDX-License-Identifier: Apache-2.0
#include "l4/drop_trace.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "tests/unit/l4/harness.h"

namespace tidegate::l4::drop_trace_test {

using namespace testing;

TEST(DropTrace, KeepsTheHeadersOfDroppedFramesTheLastFirst) {
  Harness worker;
  const Bytes first = tcp_frame("192.0.2.7", 1, "10.0.0.100", 81, kTcpSyn, std::string(200, 'x'));
  const Bytes second = tcp_frame("127.0.0.1", 1, "10.0.0.100", 80, kTcpSyn);
  worker.decide(first);
  worker.now_ms += 5;
  worker.decide(second);
  worker.decide(tcp_frame("192.0.2.7", 1, "10.0.0.100", 80, kTcpSyn));
  const std::vector<DroppedFrame> seen = worker.decider->dropped().last();
  ASSERT_EQ(seen.size(), 2u);
  EXPECT_EQ(seen[0].reason, DropReason::martian_source);
  EXPECT_EQ(seen[0].at_ms, worker.now_ms);
  EXPECT_EQ(Bytes(seen[0].head.begin(), seen[0].head.begin() + seen[0].kept), second);
  EXPECT_EQ(seen[1].reason, DropReason::no_service);
  EXPECT_EQ(seen[1].bytes, first.size());
  EXPECT_EQ(Bytes(seen[1].head.begin(), seen[1].head.end()), Bytes(first.begin(), first.begin() + 96));
}

TEST(DropTrace, AFloodOfOneReasonHidesNoOther) {
  Harness worker;
  worker.now_ms = 10'000;
  worker.decide(tcp_frame("127.0.0.1", 1, "10.0.0.100", 80, kTcpSyn));
  for (unsigned i = 0; i < 10'000; ++i) {
    worker.now_ms = 10'000 + i;
    worker.decide(tcp_frame("192.0.2.7", static_cast<uint16_t>(i), "10.0.0.100", 81, kTcpSyn));
  }
  const std::vector<DroppedFrame> seen = worker.decider->dropped().last();
  EXPECT_EQ(seen.size(), 1u + 10 * DropTrace::kAtOnce) << "eight of each second";
  EXPECT_EQ(seen.back().reason, DropReason::martian_source);
}

}  // namespace tidegate::l4::drop_trace_test
