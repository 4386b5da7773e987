// SPDX-License-Identifier: Apache-2.0
// Flow control of requests' bodies (RFC 9113 §5.2): how much a client may send before the backend takes it.
//
// A window bounds the bytes of one round trip. If the backend takes whole windows, the window is what holds the client
// up. Then the stream's window doubles, at most to kHttp2StreamWindowMostBytes, and the connection's window grows with
// it. All windows of a worker share one budget for that (kHttp2GrownWindowBytes).
#pragma once

#include <nghttp2/nghttp2.h>

#include <cstddef>
#include <cstdint>

#include "l7/limits.h"

namespace tidegate::l7 {

class Worker;

// Of one stream.
class UploadWindow {
 public:
  size_t bytes() const { return bytes_; }
  // The backend took that much. True: it has taken a whole window since the window was set.
  bool take(size_t bytes) {
    taken_ += bytes;
    return taken_ >= bytes_;
  }

 private:
  friend class UploadWindows;
  size_t bytes_ = kHttp2StreamWindowBytes;
  size_t taken_ = 0;  // since the window was set
};

// Of one connection: its own window, and the widening of its streams' windows.
class UploadWindows {
 public:
  explicit UploadWindows(Worker& worker) : worker_(worker) {}
  ~UploadWindows();
  UploadWindows(const UploadWindows&) = delete;
  UploadWindows& operator=(const UploadWindows&) = delete;

  // Widens the window of a stream whose whole window the backend has taken, if `more_comes` and the budget allow it.
  void widen(nghttp2_session* session, int32_t stream, UploadWindow& window, bool more_comes);

 private:
  Worker& worker_;
  size_t bytes_ = kHttp2ConnectionWindowBytes;
};

}  // namespace tidegate::l7
