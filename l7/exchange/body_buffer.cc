// SPDX-License-Identifier: Apache-2.0
#include "l7/exchange/body_buffer.h"

#include <algorithm>
#include <cstring>

#include "core/assert.h"
#include "l7/worker.h"

namespace tidegate::l7 {

void BodyBuffer::append(std::string_view data) {
  while (!data.empty()) {
    const size_t end = begin_ + bytes_;
    if (end == blocks_.size() * kBlockBytes) {
      if (!worker_.memory().take(kBlockBytes)) ++uncounted_;
      blocks_.push_back(worker_.blocks().lease());
    }
    const size_t now = std::min(data.size(), blocks_.size() * kBlockBytes - end);
    std::memcpy(blocks_.back().get() + end % kBlockBytes, data.data(), now);
    bytes_ += now;
    data.remove_prefix(now);
  }
}

std::string_view BodyBuffer::piece_at(size_t offset) const {
  if (offset >= bytes_) return {};
  const size_t at = begin_ + offset;
  return {blocks_[at / kBlockBytes].get() + at % kBlockBytes,
          std::min(bytes_ - offset, kBlockBytes - at % kBlockBytes)};
}

void BodyBuffer::drop(size_t bytes) {
  TIDEGATE_ASSERT(bytes <= bytes_, "no more is dropped than is held");
  bytes_ -= bytes;
  begin_ += bytes;
  while (begin_ >= kBlockBytes) {
    give_back_first();
    begin_ -= kBlockBytes;
  }
  if (bytes_ == 0) clear();
}

void BodyBuffer::give_back_all() {
  while (!blocks_.empty()) give_back_first();
  begin_ = bytes_ = 0;
}

void BodyBuffer::give_back_first() {
  worker_.blocks().give_back(std::move(blocks_.front()));
  blocks_.erase(blocks_.begin());
  if (uncounted_ > 0) {
    --uncounted_;
  } else {
    worker_.memory().give_back(kBlockBytes);
  }
}

}  // namespace tidegate::l7
