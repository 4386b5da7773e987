#include "l4/announcer.h"

namespace tidegate::l4 {

void Announcer::adopt(std::shared_ptr<const LocalSet> set, uint32_t now_ms) {
  if (set == set_) return;
  set_ = std::move(set);
  if (!set_->addresses.empty()) rounds_.add(set_->addresses.back().since, now_ms);
}

size_t Announcer::tick(uint32_t now_ms, size_t most_frames, FrameSink& sink) {
  if (rounds_.idle()) return 0;
  return rounds_.say(set_->addresses, now_ms, most_frames, [&](const LocalAddress& local) {
    uint8_t frame[kMaxNeighbourFrameBytes];
    sink.send(local.port, frame, write_announcement(frame, {ports_[local.port].mac, local.address}));
  });
}

}  // namespace tidegate::l4
