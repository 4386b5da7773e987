// SPDX-License-Identifier: Apache-2.0
#include "l4/vip_announcer.h"

#include <utility>

namespace tidegate::l4 {

void VipAnnouncer::adopt(std::shared_ptr<const LocalSet> set, uint32_t now_ms) {
  if (set == set_) return;
  set_ = std::move(set);
  if (!set_->addresses.empty()) rounds_.add(set_->addresses.back().since, now_ms);
}

// A place whose interval has passed may be reused for another address.
void VipAnnouncer::defend(const IpAddress& address, uint16_t port, uint32_t now_ms) {
  Defence* place = nullptr;
  for (size_t i = 0; i < defence_count_; ++i) {
    Defence& defence = defences_[i];
    const bool fresh = now_ms - defence.since_ms < kDefendIntervalMs;
    if (fresh && defence.address == address) return;
    if (!fresh && !defence.due) place = &defence;
  }
  if (place == nullptr && defence_count_ < kMaxConflicts) place = &defences_[defence_count_++];
  if (place == nullptr) return;
  *place = {address, port, true, now_ms};
  defence_due_ = true;
}

size_t VipAnnouncer::send_defences(size_t most, FrameSink& sink) {
  if (!defence_due_) return 0;
  size_t sent = 0;
  for (size_t i = 0; i < defence_count_; ++i) {
    if (!defences_[i].due) continue;
    if (sent == most) return sent;  // the next tick sends the rest
    defences_[i].due = false;
    announce(defences_[i].address, defences_[i].port, sink);
    ++sent;
  }
  defence_due_ = false;
  return sent;
}

void VipAnnouncer::announce(const IpAddress& address, uint16_t port, FrameSink& sink) const {
  uint8_t frame[kMaxNeighbourFrameBytes];
  sink.send(port, frame, write_announcement(frame, {ports_[port].mac, address}));
}

size_t VipAnnouncer::tick(uint32_t now_ms, size_t most_frames, FrameSink& sink) {
  const size_t defended = send_defences(most_frames, sink);
  if (rounds_.idle()) return defended;
  return defended + rounds_.say(set_->addresses, now_ms, most_frames - defended,
                                [&](const LocalAddress& local) { announce(local.address, local.port, sink); });
}

}  // namespace tidegate::l4
