// SPDX-License-Identifier: Apache-2.0
#include "cache/index/s3fifo.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <random>
#include <vector>

namespace tidegate::cache::s3fifo_test {

// S3-FIFO as in the paper, on vectors: slow and simple.
class Twin {
 public:
  explicit Twin(uint64_t capacity) : capacity_(capacity) {}
  struct Item {
    uint64_t id, bytes;
    int uses;
  };
  void insert(uint64_t id, uint64_t bytes) {
    const bool ghost = std::find(ghosts_.begin(), ghosts_.end(), id) != ghosts_.end();
    (ghost ? main_ : small_).push_back({id, bytes, 0});
  }
  void touch(uint64_t id) {
    for (auto* queue : {&small_, &main_}) {
      for (Item& item : *queue) {
        if (item.id == id) item.uses = std::min(item.uses + 1, 3);
      }
    }
  }
  void erase(uint64_t id) {
    for (auto* queue : {&small_, &main_}) std::erase_if(*queue, [id](const Item& item) { return item.id == id; });
  }
  uint64_t evict_one() {
    for (;;) {
      const bool small = !small_.empty() && (main_.empty() || total(small_) * 10 >= capacity_);
      auto& queue = small ? small_ : main_;
      Item item = queue.front();
      queue.erase(queue.begin());
      if (small && item.uses >= 2) {
        main_.push_back({item.id, item.bytes, 0});
      } else if (!small && item.uses > 0) {
        main_.push_back({item.id, item.bytes, item.uses - 1});
      } else {
        if (small) ghosts_.push_back(item.id);
        while (small && ghosts_.size() > std::max<size_t>(64, small_.size() + main_.size()))
          ghosts_.erase(ghosts_.begin());
        return item.id;
      }
    }
  }
  uint64_t bytes() const { return total(small_) + total(main_); }

 private:
  static uint64_t total(const std::vector<Item>& queue) {
    uint64_t sum = 0;
    for (const Item& item : queue) sum += item.bytes;
    return sum;
  }
  uint64_t capacity_;
  std::vector<Item> small_, main_;
  std::vector<uint64_t> ghosts_;
};

TEST(S3Fifo, EvictsWhatItsPlainTwinEvicts) {
  constexpr uint64_t kCapacity = 10'000;
  S3Fifo queue(kCapacity);
  Twin twin(kCapacity);
  std::vector<std::unique_ptr<S3Node>> nodes(400);
  std::mt19937 random(7);
  for (int step = 0; step < 20'000; ++step) {
    // Squared, so that low ids are asked for far more often.
    const double unit = std::uniform_real_distribution<>(0, 1)(random);
    const auto id = static_cast<size_t>(unit * unit * 399);
    if (nodes[id] == nullptr) {
      nodes[id] = std::make_unique<S3Node>();
      nodes[id]->identity = id;
      nodes[id]->bytes = 1 + random() % 300;
      queue.insert(*nodes[id]);
      twin.insert(id, nodes[id]->bytes);
    } else if (step % 50 == 0) {
      queue.erase(*nodes[id]);
      twin.erase(id);
      nodes[id] = nullptr;
    } else {
      nodes[id]->touch();
      twin.touch(id);
    }
    while (queue.over_capacity()) {
      S3Node* victim = queue.evict_one();
      ASSERT_NE(victim, nullptr);
      ASSERT_EQ(victim->identity, twin.evict_one());
      nodes[victim->identity] = nullptr;
    }
    ASSERT_EQ(queue.bytes(), twin.bytes());
  }
}

TEST(S3Fifo, AScanOfOneHitWondersDoesNotPushOutWhatIsUsed) {
  S3Fifo queue(1'000);
  std::vector<std::unique_ptr<S3Node>> nodes;
  const auto add = [&](uint64_t identity) -> S3Node& {
    nodes.push_back(std::make_unique<S3Node>());
    nodes.back()->identity = identity;
    nodes.back()->bytes = 10;
    queue.insert(*nodes.back());
    return *nodes.back();
  };
  for (uint64_t i = 0; i < 50; ++i) {
    S3Node& used = add(i);
    used.touch();
    used.touch();
  }
  uint64_t used_evicted = 0;
  for (uint64_t i = 1000; i < 2000; ++i) {
    add(i);
    while (queue.over_capacity()) used_evicted += queue.evict_one()->identity < 50;
  }
  EXPECT_EQ(used_evicted, 0U);
}

TEST(S3Fifo, AnEmptyQueueHasNoVictim) {
  S3Fifo queue(10);
  EXPECT_EQ(queue.evict_one(), nullptr);
}

}  // namespace tidegate::cache::s3fifo_test
