// SPDX-License-Identifier: Apache-2.0
#include "l7/h2/windows.h"

#include <algorithm>

#include "core/assert.h"

namespace tidegate::l7 {

UploadWindows::~UploadWindows() { memory_.give_back(bytes_ - kHttp2ConnectionWindowBytes); }

void UploadWindows::widen(Http2Session& session, Http2Stream& stream, StreamWindow& window, bool more_comes) {
  const size_t wider = std::min<size_t>(2 * window.bytes(), kHttp2StreamWindowMostBytes);
  window.set(window.bytes());
  if (!more_comes || wider == window.bytes()) return;
  const size_t of_all = wider + kHttp2ConnectionWindowBytes / 4;  // other streams need some too
  if (of_all > bytes_) {
    if (!memory_.take(of_all - bytes_)) return;
    bytes_ = of_all;
    session.set_connection_window(bytes_);
  }
  if (window.bytes() == kHttp2StreamWindowBytes) ++widened_;
  window.set(wider);
  session.set_window(stream, wider);
}

void UploadWindows::forget(Http2Session& session, const StreamWindow& window) {
  if (window.bytes() == kHttp2StreamWindowBytes) return;
  TIDEGATE_ASSERT(widened_ > 0, "a stream that was widened is forgotten once");
  if (--widened_ > 0) return;
  memory_.give_back(bytes_ - kHttp2ConnectionWindowBytes);
  bytes_ = kHttp2ConnectionWindowBytes;
  session.set_connection_window(bytes_);
}

}  // namespace tidegate::l7
