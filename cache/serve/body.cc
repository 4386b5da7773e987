// SPDX-License-Identifier: Apache-2.0
#include "cache/body.h"

#include <algorithm>
#include <utility>

#include "cache/disk/disk_cursor.h"
#include "cache/serve/flight.h"
#include "core/assert.h"

namespace tidegate::cache {

BodyReader::BodyReader(std::shared_ptr<const StoredObject> object, ByteRange range, ReaderPool* readers,
                       EventLoop& loop)
    : object_(std::move(object)),
      readers_(readers),
      loop_(&loop),
      position_(range.first),
      remaining_(std::min(range.length, object_->head->body_bytes - range.first)) {
  TIDEGATE_ASSERT(range.first <= object_->head->body_bytes, "a range begins within the body");
}

BodyReader::BodyReader(std::shared_ptr<Flight> flight, ByteRange range, EventLoop& loop)
    : flight_(std::move(flight)),
      readers_(flight_->engine().readers()),
      loop_(&loop),
      position_(range.first),
      remaining_(range.length),
      reader_(flight_->add_reader(range.first)) {}

void BodyReader::let_go() {
  if (call_ != nullptr) call_->cancel();
  if (flight_ != nullptr) flight_->remove_reader(reader_);
  call_ = nullptr;
  flight_ = nullptr;
}

void BodyReader::on_ready(std::function<void()> fn) {
  if (object_ != nullptr && object_->resident) return;  // a body in memory never waits, so a hit allocates nothing
  if (call_ != nullptr) call_->cancel();
  call_ = loop_ != nullptr ? std::make_shared<LoopCall>(*loop_, std::move(fn)) : nullptr;
}

BodyStep BodyReader::next(Slice& slice) {
  if (remaining_ == 0) return BodyStep::end;
  if (flight_ != nullptr) return next_arriving(slice);
  if (object_ == nullptr) return BodyStep::end;
  if (object_->resident) return next_resident(slice);
  return next_from_disk(slice, *object_->disk);
}

BodyStep BodyReader::next_resident(Slice& slice) {
  TIDEGATE_ASSERT(position_ / kChunkBytes < object_->body.size(), "a body in memory is whole");
  const Slice& chunk = object_->body[position_ / kChunkBytes];
  const size_t offset = position_ % kChunkBytes;
  slice = {chunk.owner, chunk.bytes.substr(offset, static_cast<size_t>(std::min<uint64_t>(remaining_, kChunkBytes)))};
  advance(slice);
  return BodyStep::data;
}

BodyStep BodyReader::next_arriving(Slice& slice) {
  bool on_disk = false;
  const BodyStep step = flight_->read(reader_, position_, remaining_, call_, slice, on_disk);
  if (on_disk) return next_from_disk(slice, *flight_->disk());
  if (step == BodyStep::data) advance(slice);
  return step;
}

BodyStep BodyReader::next_from_disk(Slice& slice, const DiskBody& body) {
  if (readers_ == nullptr) return BodyStep::error;
  if (disk_ == nullptr) disk_ = std::make_shared<DiskCursor>(*readers_, body);
  const BodyStep step = disk_->chunk(static_cast<uint32_t>(position_ / kChunkBytes), call_, slice);
  if (step != BodyStep::data) return step;
  const size_t offset = position_ % kChunkBytes;
  if (offset >= slice.bytes.size()) return BodyStep::error;  // the body is shorter than its record says
  slice.bytes = slice.bytes.substr(offset, static_cast<size_t>(std::min<uint64_t>(remaining_, kChunkBytes)));
  advance(slice);
  return BodyStep::data;
}

void BodyReader::advance(const Slice& slice) {
  TIDEGATE_ASSERT(slice.bytes.size() <= remaining_, "a piece lies within the range");
  position_ += slice.bytes.size();
  if (remaining_ != UINT64_MAX) remaining_ -= slice.bytes.size();
}

}  // namespace tidegate::cache
