// SPDX-License-Identifier: Apache-2.0
#include "l7/h2/session_memory.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "l7/limits.h"

namespace tidegate::l7::session_memory_test {

TEST(SessionBlocks, AFreedBlockIsGivenOutAgainForItsSize) {
  SessionBlocks blocks;
  void* const first = blocks.take(100);
  ASSERT_NE(first, nullptr);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(first) % 16, 0u);
  blocks.give_back(first);
  EXPECT_GT(blocks.kept_bytes(), 100u);
  void* const other = blocks.take(500);
  EXPECT_NE(other, first);
  EXPECT_EQ(blocks.take(105), first) << "of the same step";
  EXPECT_EQ(blocks.kept_bytes(), 0u);
  blocks.give_back(first);
  blocks.give_back(other);
  blocks.give_back(nullptr);
}

TEST(SessionBlocks, WithoutMemoryThereIsNoBlock) {
  SessionBlocks blocks;
  EXPECT_EQ(blocks.take(SIZE_MAX - 8), nullptr);
}

TEST(SessionBlocks, NoMoreIsKeptThanTheLimitAndNothingLarge) {
  SessionBlocks blocks;
  std::vector<void*> taken;
  for (size_t i = 0; i < 2 * kKeptHttp2MemoryBytes / 1'000; ++i) taken.push_back(blocks.take(1'000));
  for (void* block : taken) blocks.give_back(block);
  EXPECT_GT(blocks.kept_bytes(), kKeptHttp2MemoryBytes - 2'000);
  EXPECT_LE(blocks.kept_bytes(), kKeptHttp2MemoryBytes);
  blocks.clear();
  blocks.give_back(blocks.take(100'000));
  EXPECT_EQ(blocks.kept_bytes(), 0u);
}

}  // namespace tidegate::l7::session_memory_test
