// SPDX-License-Identifier: Apache-2.0
// Flow control of bodies (RFC 9113 §5.2): how much a peer may send before the receiver takes it.
//
// A window bounds the bytes of one round trip. If whole windows are taken, the window is what slows the sender. Then
// the stream's window doubles, up to a bound, and the connection's window grows with it. All windows of a worker share
// one MemoryBudget for that. UploadWindows does it for requests' bodies, BackendH2Connection for responses'.
#pragma once

#include <cstddef>
#include <cstdint>

#include "l7/h2/session.h"
#include "l7/limits.h"
#include "l7/wire/memory_budget.h"

namespace tidegate::l7 {

// The window of one stream.
class StreamWindow {
 public:
  explicit StreamWindow(size_t bytes) : bytes_(bytes) {}
  size_t bytes() const { return bytes_; }
  // This many bytes were taken. Returns true if a whole window was taken since the window was set.
  bool take(size_t bytes) {
    taken_ += bytes;
    return taken_ >= bytes_;
  }
  // Sets its size from now on.
  void set(size_t bytes) {
    bytes_ = bytes;
    taken_ = 0;
  }

 private:
  size_t bytes_;
  size_t taken_ = 0;  // bytes taken since the window was set
};

// The windows of one connection: its own window, and the growth of its streams' windows.
class UploadWindows {
 public:
  explicit UploadWindows(MemoryBudget& memory) : memory_(memory) {}
  ~UploadWindows();
  UploadWindows(const UploadWindows&) = delete;
  UploadWindows& operator=(const UploadWindows&) = delete;

  // Widens the window of a stream if the backend has taken a whole window, `more_comes` is true, and the budget allows
  // it.
  void widen(Http2Session& session, Http2Stream& stream, StreamWindow& window, bool more_comes);

  // A stream with this window has ended. With the last widened one, the connection's window shrinks, and the budget
  // gets the growth back.
  void forget(Http2Session& session, const StreamWindow& window);

 private:
  MemoryBudget& memory_;
  size_t bytes_ = kHttp2ConnectionWindowBytes;
  size_t widened_ = 0;  // number of present streams whose windows have grown
};

}  // namespace tidegate::l7
