// SPDX-License-Identifier: Apache-2.0
// Memory of the blocks that connections lease.
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <vector>

#include "l7/wire/buffer.h"

namespace tidegate::l7::test::block_pool_test {

size_t resident_pages(const char* block) {
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(block) + page - 1) / page * page;
  const uintptr_t end = (reinterpret_cast<uintptr_t>(block) + kBlockBytes) / page * page;
  std::vector<unsigned char> pages((end - begin) / page);
  if (::mincore(reinterpret_cast<void*>(begin), end - begin, pages.data()) != 0) return 0;  // not mapped any more
  size_t count = 0;
  for (const unsigned char each : pages) count += each & 1U;
  return count;
}

// As after a flood of slow readers, while some of their blocks are still in use.
TEST(BlockPool, GivesThePagesOfBlocksThatItDoesNotKeepBackToTheKernel) {
  constexpr size_t kMany = 1'000;
  BlockPool pool;
  std::vector<BlockPool::Block> blocks;
  std::vector<const char*> places;
  for (size_t i = 0; i < kMany; ++i) {
    blocks.push_back(pool.lease());
    std::memset(blocks.back().get(), 'x', kBlockBytes);
    if (i % 2 == 0) places.push_back(blocks.back().get());
  }
  const BlockPool::Block in_use = std::move(blocks.back());
  for (size_t i = 0; i < kMany; i += 2) pool.give_back(std::move(blocks[i]));
  size_t resident = 0;
  for (const char* place : places) resident += resident_pages(place);
  EXPECT_LT(resident, 160 * kBlockBytes / static_cast<size_t>(::sysconf(_SC_PAGESIZE))) << "128 blocks are kept";
  pool.give_back(pool.lease());
  EXPECT_EQ(in_use[kBlockBytes - 1], 'x');
}

}  // namespace tidegate::l7::test::block_pool_test
