// SPDX-License-Identifier: Apache-2.0
// The two phases under seeded schedules: crashes, hangs, partitions, lost, late and repeated messages.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/control/edge_simulation.h"

namespace tidegate::testing::promise_test {

// In blocks, so that several processes can share them: 500 schedules in the gate, 10,000 in the long set.
constexpr uint64_t kBlocks = 4, kLongBlocks = 80, kBlock = 125;
constexpr uint64_t kSchedulesForAFlaw = 400;

void run_schedules(uint64_t first, uint64_t count) {
  size_t committed = 0, refused = 0;
  for (uint64_t seed = first; seed < first + count; ++seed) {
    EdgeSimulation edge(seed, Flaw::none);
    const std::optional<std::string> violation = edge.run();
    ASSERT_FALSE(violation) << "seed " << seed << ": " << *violation;
    committed += edge.committed();
    refused += edge.refused();
  }
  // Schedules in which nothing happens would prove nothing.
  EXPECT_GT(committed, count);
  EXPECT_GT(refused, count);
}

class PromiseSchedules : public ::testing::TestWithParam<uint64_t> {};
TEST_P(PromiseSchedules, Hold) { run_schedules(1 + GetParam() * kBlock, kBlock); }
INSTANTIATE_TEST_SUITE_P(Blocks, PromiseSchedules, ::testing::Range<uint64_t>(0, kBlocks));
INSTANTIATE_TEST_SUITE_P(LongBlocks, PromiseSchedules, ::testing::Range<uint64_t>(0, kLongBlocks));

TEST(Promise, EveryPlantedMistakeIsFound) {
  for (const Flaw flaw : kFlaws) {
    std::optional<std::string> found;
    for (uint64_t seed = 1; seed <= kSchedulesForAFlaw && !found; ++seed) found = EdgeSimulation(seed, flaw).run();
    EXPECT_TRUE(found) << "flaw " << static_cast<int>(flaw) << " is never seen";
  }
}

TEST(Promise, AScheduleCanBeRunAgain) {
  EdgeSimulation first(7, Flaw::none), second(7, Flaw::none);
  EXPECT_EQ(first.run(), second.run());
  EXPECT_EQ(first.committed(), second.committed());
  EXPECT_EQ(first.refused(), second.refused());
}

}  // namespace tidegate::testing::promise_test
