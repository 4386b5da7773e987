// SPDX-License-Identifier: Apache-2.0
// The data shared by the control thread and the workers: the tables in force, and the boards.
#include "l4/publish.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

#include "l4/conflict_board.h"
#include "l4/neighbour_board.h"
#include "l4/port_board.h"

namespace tidegate::l4::publish_test {

constexpr uint32_t kWorkers = 3;

// Every part contains the number of the generation. So a worker notices tables that were freed or are not complete.
std::shared_ptr<const ForwardingTables> tables_of(uint64_t generation) {
  auto tables = std::make_shared<ForwardingTables>();
  tables->generation = generation;
  tables->digest = std::to_string(generation);
  tables->backends.resize(generation % 7 + 1);
  return tables;
}

void judge(const ForwardingTables& tables) {
  ASSERT_EQ(tables.digest, std::to_string(tables.generation));
  ASSERT_EQ(tables.backends.size(), tables.generation % 7 + 1);
}

TEST(Publisher, WorkersSeeWholeTablesWhileTheyAreReplaced) {
  constexpr uint64_t kGenerations = 400;
  Publisher publisher(kWorkers);
  publisher.publish(tables_of(1));
  std::atomic<bool> stop{false};
  std::atomic<uint32_t> at_work{0};
  std::vector<std::thread> workers;
  for (uint32_t worker = 0; worker < kWorkers; ++worker) {
    workers.emplace_back([&, worker] {
      publisher.online(worker);
      uint64_t last = 0, bursts = 0;
      while (!stop.load(std::memory_order_relaxed)) {
        const ForwardingTables* const tables = publisher.current();
        judge(*tables);
        ASSERT_GE(tables->generation, last) << "never back to older ones";
        last = tables->generation;
        publisher.quiescent(worker);
        if (++bursts == 1) ++at_work;
        // Now and then it sleeps, like a worker without frames.
        if (bursts % 16 != 0) continue;
        publisher.offline(worker);
        std::this_thread::yield();
        publisher.online(worker);
      }
      publisher.offline(worker);
    });
  }
  while (at_work < kWorkers) std::this_thread::yield();
  for (uint64_t generation = 2; generation <= kGenerations; ++generation) {
    std::weak_ptr<const ForwardingTables> old = publisher.in_force();
    publisher.publish(tables_of(generation));
    ASSERT_TRUE(old.expired()) << "no worker can see it any more, so it is freed";
  }
  stop = true;
  for (std::thread& worker : workers) worker.join();
  EXPECT_EQ(publisher.in_force()->generation, kGenerations);
}

TEST(Publisher, WaitsForABurstThatIsUnderWay) {
  Publisher publisher(1);
  publisher.publish(tables_of(1));
  publisher.online(0);
  const ForwardingTables* const held = publisher.current();
  std::atomic<bool> published{false};
  std::thread control([&] {
    publisher.publish(tables_of(2));
    published = true;
  });
  while (publisher.current() == held) std::this_thread::yield();  // the new tables are there for the next burst
  EXPECT_FALSE(published);
  judge(*held);
  publisher.quiescent(0);
  control.join();
  EXPECT_TRUE(published);
  publisher.offline(0);
}

TEST(Boards, TellAcrossThreads) {
  NeighbourBoard neighbours;
  PortBoard ports(2);
  ConflictBoard conflicts;
  std::atomic<bool> done{false};
  std::thread worker([&] {
    uint64_t seen = ports.generation();
    for (uint32_t turn = 0; turn < 2'000; ++turn) {
      neighbours.tell(static_cast<NeighbourId>(turn % 64), turn % 3 == 0);
      AddressConflict conflict;
      conflict.address = *IpAddress::parse("192.0.2." + std::to_string(turn % 32));
      conflicts.tell(conflict);
      if (ports.generation() != seen) {
        ASSERT_GT(ports.generation(), seen);
        seen = ports.generation();
        ASSERT_TRUE(ports.is_usable(0)) << "nobody has touched it";
      }
    }
    done = true;
  });
  uint64_t changes = 0;
  for (uint32_t turn = 0; !done || turn < 2; ++turn) {
    ports.set_usable(1, turn % 2 == 0);
    const std::vector<AddressConflict> taken = conflicts.take();
    ASSERT_LE(taken.size(), kMaxConflicts);
    ASSERT_GE(neighbours.changes(), changes);
    changes = neighbours.changes();
    uint64_t silent = 0;
    for (uint32_t id = 0; id < 64; ++id) silent += neighbours.is_silent(static_cast<NeighbourId>(id)) ? 1 : 0;
    ASSERT_LE(silent, 64U);
  }
  worker.join();
  conflicts.take();
  conflicts.tell({});
  EXPECT_EQ(conflicts.take().size(), 1U) << "the board is free again";
  uint64_t silent = 0;
  for (uint32_t id = 0; id < 64; ++id) silent += neighbours.is_silent(static_cast<NeighbourId>(id)) ? 1 : 0;
  EXPECT_EQ(silent, neighbours.silent()) << "the count is that of the flags";
}

}  // namespace tidegate::l4::publish_test
