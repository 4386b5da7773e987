// SPDX-License-Identifier: Apache-2.0
// Http2Conduct: whether a client asks for more work on an HTTP/2 connection than its requests are worth. Pure counting:
// no sockets, and time is an argument.
//
// Every frame costs one. Progress of a request pays for frames: a request that begins, content received, content sent.
// Other frames (PING, SETTINGS, PRIORITY, WINDOW_UPDATE by the byte, empty DATA, unknown types) are paid from a budget
// of kHttp2IdleFrames, which grows by kHttp2IdleFramesPerSecond. Resets have their own budget. It counts the client's
// resets, and those that its errors make us send (CVE-2023-44487, CVE-2025-8671).
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <utility>

#include "l7/limits.h"

namespace tidegate::l7 {

// Why an HTTP/2 connection was closed; the counter's label is its name().
enum class Http2Fault : uint8_t {
  none,
  idle_frames,   // too many frames without progress of a request
  resets,        // too many streams reset
  header_bytes,  // a header block that is far longer than max_header
  library,       // the session ended it: floods of acknowledgements, CONTINUATION
  protocol,      // a connection error (RFC 9113 §5.4.1)
  count_,
};
constexpr const char* name(Http2Fault fault) {
  constexpr const char* kNames[] = {"none", "idle_frames", "resets", "header_bytes", "library", "protocol"};
  static_assert(std::size(kNames) == static_cast<size_t>(Http2Fault::count_));
  return kNames[static_cast<size_t>(fault)];
}

class Http2Conduct {
 public:
  // Call it once a round, before frames of the round are counted.
  void refill(uint64_t now_ns) {
    const uint64_t elapsed_ns = now_ns - std::exchange(refilled_ns_, now_ns);
    const uint64_t elapsed_ms = std::min<uint64_t>((elapsed_ns + rest_ns_) / 1'000'000, 3'600'000);
    rest_ns_ = (elapsed_ns + rest_ns_) % 1'000'000;
    restore(frames_, elapsed_ms * kHttp2IdleFramesPerSecond);
    restore(resets_, elapsed_ms * kHttp2ResetsPerSecond);
  }

  // `header_bytes`: size of HEADERS and CONTINUATION, which cost work for any stream.
  void on_frame(size_t header_bytes) { frames_ += kUnit * (1 + header_bytes / 1024); }
  // DATA that is not empty. A whole window of short DATA frames may be on its way to a stream that has ended.
  void on_data_frame() { frames_ += kUnit / 8; }
  void on_request() { restore(frames_, kUnit * 64); }
  void on_content_received() { restore(frames_, kUnit); }
  // `window_left`: the content limited the frame's length, and not the client's window. A window that the client gives
  // back frame by frame comes in smaller and smaller parts (each end of one of our blocks splits one). So short frames
  // pay too.
  void on_content_sent(size_t bytes, bool window_left) {
    const uint64_t short_frame = bytes >= 16 ? kUnit : 0;
    restore(frames_, std::max(kUnit * bytes / 64, short_frame) + (window_left ? kUnit * 4 : 0));
  }
  void on_reset() { resets_ += kUnit; }

  bool operator==(const Http2Conduct&) const = default;

  Http2Fault fault() const {
    if (frames_ > kUnit * kHttp2IdleFrames) return Http2Fault::idle_frames;
    return resets_ > kUnit * kHttp2ResetBurst ? Http2Fault::resets : Http2Fault::none;
  }

 private:
  static constexpr uint64_t kUnit = 1000;  // the amount restored in a millisecond is a fraction
  static void restore(uint64_t& used, uint64_t by) { used -= std::min(used, by); }

  uint64_t frames_ = 0, resets_ = 0;  // used up, in thousandths
  uint64_t refilled_ns_ = 0, rest_ns_ = 0;
};

}  // namespace tidegate::l7
