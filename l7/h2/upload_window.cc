// SPDX-License-Identifier: Apache-2.0
#include "l7/h2/upload_window.h"

#include <algorithm>

#include "l7/worker.h"

namespace tidegate::l7 {

UploadWindows::~UploadWindows() { worker_.give_back_window(bytes_ - kHttp2ConnectionWindowBytes); }

void UploadWindows::widen(nghttp2_session* session, int32_t stream, UploadWindow& window, bool more_comes) {
  window.taken_ = 0;
  if (!more_comes) return;
  const size_t wider = std::min<size_t>(2 * window.bytes_, kHttp2StreamWindowMostBytes);
  if (wider == window.bytes_) return;
  const size_t of_all = wider + kHttp2ConnectionWindowBytes / 4;  // other streams need some too
  if (of_all > bytes_) {
    if (!worker_.take_window(of_all - bytes_)) return;
    bytes_ = of_all;
    nghttp2_session_set_local_window_size(session, NGHTTP2_FLAG_NONE, 0, static_cast<int32_t>(bytes_));
  }
  window.bytes_ = wider;
  nghttp2_session_set_local_window_size(session, NGHTTP2_FLAG_NONE, stream, static_cast<int32_t>(wider));
}

}  // namespace tidegate::l7
