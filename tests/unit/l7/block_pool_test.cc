// SPDX-License-Identifier: Apache-2.0
// Memory of the blocks that connections lease.
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <deque>
#include <random>
#include <set>
#include <string>
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

// Eighty calls of gRPC at one time hold some four messages each. If the pool gave memory to the kernel and took it
// again, this would cost a quarter of a call.
TEST(BlockPool, KeepsTheBlocksOfManyShortMessagesAtOneTime) {
  BlockPool pool;
  const std::string message(69, 'm');
  const auto places_of_messages = [&] {
    std::set<const char*> places;
    std::deque<BlockQueue> received;
    std::deque<OutQueue> sent;
    for (int i = 0; i < 160; ++i) {
      received.emplace_back(pool).append(message);
      EXPECT_TRUE(sent.emplace_back(pool, OutQueue::First::small).append(message));
      places.insert(received.back().front().data());
      places.insert(sent.back().front().data());
    }
    return places;
  };
  const std::set<const char*> places = places_of_messages();
  EXPECT_EQ(places.size(), 320u);
  EXPECT_EQ(pool.kept_bytes(), 320 * kSmallBlockBytes);
  EXPECT_EQ(places_of_messages(), places);
}

TEST(OutQueue, BytesComeOutAsTheyWentInWhateverTheirPiecesAndItsBoundHolds) {
  for (const OutQueue::First first : {OutQueue::First::small, OutQueue::First::large}) {
    BlockPool pool;
    OutQueue queue(pool, first);
    std::mt19937 random(11);
    std::string expected, got;
    for (int round = 0; round < 2'000; ++round) {
      const size_t bytes = random() % (random() % 2 == 0 ? 6'000 : 100'000);
      const std::string piece(bytes, static_cast<char>('a' + random() % 26));
      const bool fits = queue.bytes() + bytes <= kBlockBytes;
      const bool taken = queue.append(piece);
      ASSERT_TRUE(taken || !fits);
      if (taken) expected += piece;
      ASSERT_LE(queue.bytes(), kUnsentBlocks * kBlockBytes);
      iovec pieces[kUnsentBlocks];
      std::string gathered;
      for (size_t i = 0, count = queue.gather(pieces); i < count; ++i) {
        gathered.append(static_cast<const char*>(pieces[i].iov_base), pieces[i].iov_len);
      }
      ASSERT_TRUE(gathered == expected.substr(got.size()));
      ASSERT_TRUE(gathered.starts_with(queue.front()));
      const size_t now = random() % (queue.bytes() + 1);
      got += gathered.substr(0, now);
      queue.sent(now);
      ASSERT_EQ(queue.bytes(), expected.size() - got.size());
    }
    queue.clear();
    ASSERT_TRUE(queue.append("y"));
    EXPECT_EQ(queue.front(), "y");
  }
}

// What is gathered for one write is one record of TLS, and not two.
TEST(OutQueue, AQueueThatBeginsLargeKeepsABlockOfBytesTogether) {
  BlockPool pool;
  OutQueue queue(pool, OutQueue::First::large);
  for (size_t i = 0; i < kBlockBytes / 1'024; ++i) ASSERT_TRUE(queue.append(std::string(1'024, 'x')));
  EXPECT_EQ(queue.front().size(), kBlockBytes);
}

}  // namespace tidegate::l7::test::block_pool_test
