// SPDX-License-Identifier: Apache-2.0
#include "l4/vip_asker.h"

#include <algorithm>

#include "l4/rounds.h"

namespace tidegate::l4 {

void VipAsker::adopt(std::shared_ptr<const LocalSet> set, uint32_t now_ms) {
  if (set == set_) return;
  set_ = std::move(set);
  next_ = 0;
  due_ms_ = now_ms;
}

size_t VipAsker::tick(uint32_t now_ms, size_t most_frames, FrameSink& sink) {
  if (set_ == nullptr || set_->asked.empty() || !is_due(due_ms_, now_ms)) return 0;
  const std::vector<LocalAddress>& asked = set_->asked;
  const size_t portion_end = std::min((next_ / kPortion + 1) * kPortion, asked.size());
  size_t sent = 0;
  for (; next_ < portion_end && sent < most_frames; ++next_, ++sent) {
    const LocalAddress& local = asked[next_];
    uint8_t frame[kMaxNeighbourFrameBytes];
    const size_t bytes =
        write_request(frame, identity_towards(ports_[local.port], local.address), local.address, nullptr);
    sink.send(local.port, frame, bytes);
  }
  if (next_ < portion_end) return sent;  // the next call does the rest
  const bool only_one = asked.size() <= kPortion;
  due_ms_ = now_ms + (only_one ? round_ms(asked.size()) : kPortionMs);
  if (next_ == asked.size()) next_ = 0;
  return sent;
}

}  // namespace tidegate::l4
