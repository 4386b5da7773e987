// SPDX-License-Identifier: Apache-2.0
#include "cache/index/s3fifo.h"

#include "core/assert.h"

#include <algorithm>
#include <utility>

namespace tidegate::cache {
namespace {

constexpr uint64_t kSmallShare = 10;   // the small queue's share: a tenth
constexpr uint8_t kPromotingUses = 2;  // uses in the small queue that move an object to the main queue
constexpr size_t kMinGhosts = 64;

}  // namespace

void S3Fifo::List::push(S3Node& node) {
  node.next = nullptr;
  node.previous = newest;
  (newest != nullptr ? newest->next : oldest) = &node;
  newest = &node;
  bytes += node.bytes;
  ++count;
}

void S3Fifo::List::unlink(S3Node& node) {
  TIDEGATE_ASSERT(count > 0 && bytes >= node.bytes, "a queued node is counted");
  (node.previous != nullptr ? node.previous->next : oldest) = node.next;
  (node.next != nullptr ? node.next->previous : newest) = node.previous;
  node.previous = node.next = nullptr;
  bytes -= node.bytes;
  --count;
}

void S3Fifo::push(S3Node& node, S3Node::Queue queue) {
  TIDEGATE_ASSERT(queue != S3Node::Queue::none && node.queue == S3Node::Queue::none, "a node is in one queue");
  node.queue = queue;
  list_of(node).push(node);
}

void S3Fifo::insert(S3Node& node) {
  node.uses.store(0, std::memory_order_relaxed);
  push(node, ghosts_.count(node.identity) != 0 ? S3Node::Queue::main : S3Node::Queue::small);
}

void S3Fifo::erase(S3Node& node) {
  if (node.queue == S3Node::Queue::none) return;
  list_of(node).unlink(node);
  node.queue = S3Node::Queue::none;
}

S3Node* S3Fifo::evict_one() {
  for (;;) {
    const bool from_small = small_.count > 0 && (main_.count == 0 || small_.bytes * kSmallShare >= capacity_);
    S3Node* node = from_small ? small_.oldest : main_.oldest;
    if (node == nullptr) return nullptr;
    erase(*node);
    const uint8_t uses = node->uses.load(std::memory_order_relaxed);
    if (from_small && uses >= kPromotingUses) {
      node->uses.store(0, std::memory_order_relaxed);
      push(*node, S3Node::Queue::main);
    } else if (!from_small && uses > 0) {
      node->uses.store(static_cast<uint8_t>(uses - 1), std::memory_order_relaxed);
      push(*node, S3Node::Queue::main);
    } else {
      if (from_small) remember(node->identity);
      return node;
    }
  }
}

void S3Fifo::remember(uint64_t identity) {
  ghost_order_.push_back(identity);
  ++ghosts_[identity];
  while (ghost_order_.size() > std::max(kMinGhosts, size())) {
    const auto oldest = ghosts_.find(ghost_order_.front());
    if (--oldest->second == 0) ghosts_.erase(oldest);
    ghost_order_.pop_front();
  }
}

}  // namespace tidegate::cache
