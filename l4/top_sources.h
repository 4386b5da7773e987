// SPDX-License-Identifier: Apache-2.0
// TopSources: which client networks send most to the VIPs, counted while an operator asks for it. Fixed memory:
// kTopSources places, eight to a group that the network's hash gives (space saving: Metwally, Agrawal, El Abbadi,
// "Efficient computation of frequent and top-k elements in data streams", 2005). A new network takes the place of the
// smallest one in its group, and begins with that count, which is its `error`. So a count is never too low, and at most
// `error` too high. A network without error was counted from its first packet on.
#pragma once

#include <algorithm>
#include <memory>
#include <vector>

#include "core/hash.h"
#include "l4/limits.h"
#include "l4/observer.h"
#include "l4/packet_view.h"

namespace tidegate::l4 {

struct TopSource {
  AddressWords network;
  uint8_t family = 0;  // 0: the place is free
  uint64_t packets = 0, bytes = 0;
  uint64_t error = 0;  // packets that may belong to another network
};

class TopSources final : public FrameObserver {
 public:
  // The masks of the networks; see Guard.
  TopSources(const HashKey& key, const AddressWords& mask_v4, const AddressWords& mask_v6)
      : key_(key), mask_v4_(mask_v4), mask_v6_(mask_v6) {}

  void before(const Frame* frames, size_t count, uint32_t) override {
    for (size_t i = 0; i < count; ++i) count_frame(frames[i]);
  }
  void after(const Frame*, const Fate*, size_t) override {}

  void add(uint8_t family, const AddressWords& network, uint64_t bytes) {
    TopSource* group = &places_[siphash13_words<3>(key_, {network.a, network.b, family}) % kGroups * kWays];
    TopSource* smallest = group;
    for (TopSource* each = group; each != group + kWays; ++each) {
      if (each->family == family && each->network == network) {
        ++each->packets;
        each->bytes += bytes;
        return;
      }
      if (each->packets < smallest->packets) smallest = each;
    }
    *smallest = {network, family, smallest->packets + 1, bytes, smallest->packets};
  }
  const std::vector<TopSource>& places() const { return places_; }

 private:
  static constexpr size_t kWays = 8, kGroups = kTopSources / kWays;

  void count_frame(const Frame& frame) {
    PacketView view;
    if (frame.learn_only || frame.asked != 0 || !read_observed(frame, view)) return;
    const AddressWords& mask = view.family == 4 ? mask_v4_ : mask_v6_;
    add(view.family, {view.source.a & mask.a, view.source.b & mask.b}, frame.bytes);
  }

  HashKey key_;
  AddressWords mask_v4_, mask_v6_;
  std::vector<TopSource> places_ = std::vector<TopSource>(kTopSources);
};

// The networks of all workers together, the ones with most packets first.
std::vector<TopSource> merge(const std::vector<std::unique_ptr<TopSources>>& workers);

}  // namespace tidegate::l4
