// SPDX-License-Identifier: Apache-2.0
#include "l7/h2/windows.h"

#include <algorithm>

#include "core/assert.h"

namespace tidegate::l7 {

UploadWindows::~UploadWindows() { memory_.give_back(bytes_ - kHttp2ConnectionWindowBytes); }

void UploadWindows::widen(nghttp2_session* session, int32_t stream, StreamWindow& window, bool more_comes) {
  const size_t wider = std::min<size_t>(2 * window.bytes(), kHttp2StreamWindowMostBytes);
  window.set(window.bytes());
  if (!more_comes || wider == window.bytes()) return;
  const size_t of_all = wider + kHttp2ConnectionWindowBytes / 4;  // other streams need some too
  if (of_all > bytes_) {
    if (!memory_.take(of_all - bytes_)) return;
    bytes_ = of_all;
    nghttp2_session_set_local_window_size(session, NGHTTP2_FLAG_NONE, 0, static_cast<int32_t>(bytes_));
  }
  if (window.bytes() == kHttp2StreamWindowBytes) ++widened_;
  window.set(wider);
  nghttp2_session_set_local_window_size(session, NGHTTP2_FLAG_NONE, stream, static_cast<int32_t>(wider));
}

void UploadWindows::forget(nghttp2_session* session, const StreamWindow& window) {
  if (window.bytes() == kHttp2StreamWindowBytes) return;
  TIDEGATE_ASSERT(widened_ > 0, "a stream that was widened is forgotten once");
  if (--widened_ > 0) return;
  memory_.give_back(bytes_ - kHttp2ConnectionWindowBytes);
  bytes_ = kHttp2ConnectionWindowBytes;
  nghttp2_session_set_local_window_size(session, NGHTTP2_FLAG_NONE, 0, kHttp2ConnectionWindowBytes);
}

}  // namespace tidegate::l7
