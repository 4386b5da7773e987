// SPDX-License-Identifier: Apache-2.0
// The bodies of stored and arriving responses, as clients read them. A body comes in refcounted pieces. To read it
// never copies and never blocks.
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

// A piece of a body. `owner` keeps the bytes alive: hold it until the last byte was written (writev, TLS, DATA frame).
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
  end,    // the whole range was given
  error,  // the fetch failed midway, or the disk copy is damaged; close or reset the connection
};

// Reads one body for one client. It belongs to one loop's thread. A body in memory gives its pieces at once. The reader
// threads read ahead in a body on disk. A body that is still arriving is followed as it grows. Destroy the reader at
// any time: on_ready is not called afterwards.
//
// Bound: it holds the piece that it gave last, and 256 KB of read-ahead when it reads from disk.
class BodyReader {
 public:
  BodyReader() = default;  // an empty body: next() returns `end`
  // Inline, because every hit moves a reader several times. Moving an empty one does nothing else.
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

  // Call it before the first next() that may wait. The function is kept for the reader's life.
  void on_ready(std::function<void()> fn);
  BodyStep next(Slice& slice);
  // True if everything was given out. False while the length is not known yet.
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
  std::shared_ptr<DiskCursor> disk_;            // made when bytes must come from the disk
  std::shared_ptr<LoopCall> call_;              // made by on_ready()
  ReaderPool* readers_ = nullptr;
  EventLoop* loop_ = nullptr;
  uint64_t position_ = 0;   // offset of the next byte in the whole body
  uint64_t remaining_ = 0;  // bytes of the range that are not given yet
  uint64_t reader_ = 0;     // identifies this reader in the flight
};

}  // namespace tidegate::cache
