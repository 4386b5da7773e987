// SPDX-License-Identifier: Apache-2.0
// Health: the state of everything that a steer may answer, by health and overrides, one byte each. It is made again at
// each change of the live state, and all steers share it.
#pragma once

#include <cstdint>
#include <vector>

#include "conf/model.h"
#include "conf/snapshot.h"

namespace tidegate::dns {

namespace health {
constexpr uint8_t kUsable = 1;    // up: may be answered
constexpr uint8_t kFailOpen = 2;  // not under an override: may be answered if nothing is usable
}  // namespace health

using Health = std::vector<uint8_t>;

// The position of each byte in Health: first every VIP, then every backend of every pool, then every target of every
// steer, in the model's order. A target's byte is only about overrides of that target.
class HealthLayout {
 public:
  explicit HealthLayout(const Model& model);
  uint32_t of_vip(uint32_t vip) const { return vip; }
  uint32_t of_backend(uint32_t pool, uint32_t backend) const { return first_of_pool_[pool] + backend; }
  uint32_t of_target(uint32_t steer, uint32_t target) const { return first_of_steer_[steer] + target; }
  uint32_t size() const { return size_; }

 private:
  std::vector<uint32_t> first_of_pool_, first_of_steer_;
  uint32_t size_ = 0;
};

Health compile_health(const Snapshot& snapshot);

}  // namespace tidegate::dns
