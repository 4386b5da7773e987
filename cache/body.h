// SPDX-License-Identifier: Apache-2.0
// The bodies of stored and arriving responses, as clients read them: refcounted pieces, never a copy, never a block.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string_view>
#include <utility>

namespace tidegate {
class EventLoop;
}

namespace tidegate::cache {

struct StoredObject;
struct DiskBody;
class Flight;
class DiskCursor;
class Engine;
class LoopCall;
class ReaderPool;

// A piece of a body. `owner` keeps the bytes alive: hold it until the last of them was written (writev, TLS, DATA
// frame).
struct Slice {
  std::shared_ptr<const void> owner;
  std::string_view bytes;
};

// A half-open part of a body, in bytes.
struct ByteRange {
  uint64_t first = 0;
  uint64_t length = UINT64_MAX;  // UINT64_MAX: to the end
};

enum class BodyStep : uint8_t {
  data,   // `slice` holds 1..65,516 bytes
  wait,   // nothing yet: on_ready is called once, on this reader's loop, when next() is worth calling again
  end,    // all of the range was given
  error,  // the leader failed midway, or the disk copy is damaged: the response cannot be completed; close or reset
};

// One client's way through one body. Belongs to one loop's thread. A resident object gives its pieces at once; one on
// disk is read ahead by the reader threads; one that is still arriving is followed as it grows. Destroying it at any
// time is safe: on_ready is never called afterwards.
//
// Bounds: a reader holds no more than what it was handed, plus 256 KB of read-ahead when it reads from disk.
class BodyReader {
 public:
  BodyReader() = default;  // gives nothing: end
  // Moved several times on the way of every hit: inline, and nothing to do for one that holds nothing.
  BodyReader(BodyReader&& other) noexcept
      : object_(std::move(other.object_)),
        flight_(std::move(other.flight_)),
        disk_(std::move(other.disk_)),
        call_(std::move(other.call_)),
        readers_(other.readers_),
        loop_(other.loop_),
        position_(other.position_),
        remaining_(std::exchange(other.remaining_, 0)),
        reader_(std::exchange(other.reader_, 0)) {}
  BodyReader& operator=(BodyReader&& other) noexcept {
    if (this == &other) return *this;
    std::destroy_at(this);
    return *std::construct_at(this, std::move(other));
  }
  ~BodyReader() {
    if (call_ != nullptr || flight_ != nullptr) let_go();
  }

  // Set before the first next() that may wait. Kept for the reader's life.
  void on_ready(std::function<void()> fn);
  BodyStep next(Slice& slice);
  // Whether next() has nothing but `end` to give: all was handed out already. False where that is not known yet.
  bool ended() const { return remaining_ == 0; }

 private:
  friend class Engine;
  friend class Flight;
  BodyReader(std::shared_ptr<const StoredObject> object, ByteRange range, ReaderPool* readers, EventLoop& loop);
  BodyReader(std::shared_ptr<Flight> flight, ByteRange range, EventLoop& loop);
  BodyStep next_resident(Slice& slice);
  BodyStep next_arriving(Slice& slice);
  BodyStep next_from_disk(Slice& slice, const DiskBody& body);
  void advance(const Slice& slice);
  void let_go();

  std::shared_ptr<const StoredObject> object_;  // resident or on disk
  std::shared_ptr<Flight> flight_;              // arriving
  std::shared_ptr<DiskCursor> disk_;            // made when bytes must come from disk
  std::shared_ptr<LoopCall> call_;              // made by on_ready()
  ReaderPool* readers_ = nullptr;
  EventLoop* loop_ = nullptr;
  uint64_t position_ = 0;   // offset of the next byte in the whole body
  uint64_t remaining_ = 0;  // bytes of the range still to give
  uint64_t reader_ = 0;     // this reader's registration with the flight
};

}  // namespace tidegate::cache
