// SPDX-License-Identifier: Apache-2.0
#include "l7/exchange/body_buffer.h"

#include <algorithm>
#include <cstring>

#include "core/assert.h"
#include "l7/worker.h"

namespace tidegate::l7 {

BodyBuffer::Place BodyBuffer::place_of(size_t at) const {
  if (at < first_size_) return {0, at, first_size_ - at};
  const size_t beyond = at - first_size_;
  return {1 + beyond / kBlockBytes, beyond % kBlockBytes, kBlockBytes - beyond % kBlockBytes};
}

void BodyBuffer::add_block(size_t size) {
  if (!worker_.memory().take(size)) uncounted_bytes_ += size;
  if (blocks_.empty()) first_size_ = size;
  blocks_.push_back(worker_.blocks().lease(size));
}

void BodyBuffer::append(std::string_view data) {
  while (!data.empty()) {
    const size_t end = begin_ + bytes_;
    if (end == size()) add_block(blocks_.empty() ? block_size_for(data.size()) : kBlockBytes);
    const Place place = place_of(end);
    const size_t now = std::min(data.size(), place.room);
    std::memcpy(blocks_[place.block].get() + place.offset, data.data(), now);
    bytes_ += now;
    data.remove_prefix(now);
  }
}

std::string_view BodyBuffer::piece_at(size_t offset) const {
  if (offset >= bytes_) return {};
  const Place place = place_of(begin_ + offset);
  return {blocks_[place.block].get() + place.offset, std::min(bytes_ - offset, place.room)};
}

void BodyBuffer::drop(size_t bytes) {
  TIDEGATE_ASSERT(bytes <= bytes_, "no more is dropped than is held");
  bytes_ -= bytes;
  begin_ += bytes;
  while (!blocks_.empty() && begin_ >= first_size_) {
    begin_ -= first_size_;
    give_back_first();
  }
  if (bytes_ == 0) clear();
}

void BodyBuffer::give_back_all() {
  while (!blocks_.empty()) give_back_first();
  begin_ = bytes_ = 0;
}

void BodyBuffer::give_back_first() {
  worker_.blocks().give_back(std::move(blocks_.front()), first_size_);
  blocks_.erase(blocks_.begin());
  const size_t uncounted = std::min(uncounted_bytes_, first_size_);
  uncounted_bytes_ -= uncounted;
  worker_.memory().give_back(first_size_ - uncounted);
  first_size_ = blocks_.empty() ? 0 : kBlockBytes;
}

}  // namespace tidegate::l7
