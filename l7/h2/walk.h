// SPDX-License-Identifier: Apache-2.0
// Http2Walk: finds the frames in the bytes of a client before the session takes them (RFC 9113 §4.1). The
// session processes all given bytes in one call. The walk counts every frame, and limits how many are given at a time.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "l7/h2/conduct.h"

namespace tidegate::l7 {

class Http2Walk {
 public:
  // How many bytes of `input` may be given to the session now, so that at most `frames` frames begin. `input` follows
  // what was walked before. 0 if the next byte belongs to the head of one frame too many. Decrements `frames`, and
  // counts the frames in `conduct`.
  size_t next(std::string_view input, uint64_t& frames, Http2Conduct& conduct) {
    size_t at = 0;
    while (at < input.size()) {
      if (skip_ > 0) {
        const size_t now = std::min(skip_, input.size() - at);
        skip_ -= now;
        at += now;
        continue;
      }
      if (frames == 0) break;  // also in the middle of a head: the frame is counted when its head is complete
      while (head_bytes_ < kHeadBytes && at < input.size()) head_[head_bytes_++] = static_cast<uint8_t>(input[at++]);
      if (head_bytes_ < kHeadBytes) break;
      head_bytes_ = 0;
      --frames;
      skip_ = size_t{head_[0]} << 16 | size_t{head_[1]} << 8 | head_[2];
      const uint8_t type = head_[3];
      if (type == kData && skip_ > 0) {
        conduct.on_data_frame();
      } else {
        conduct.on_frame(type == kHeaders || type == kContinuation ? skip_ : 0);
      }
      if (type == kResetStream) conduct.on_reset();
    }
    return at;
  }

 private:
  static constexpr size_t kPrefaceBytes = 24, kHeadBytes = 9;
  static constexpr uint8_t kData = 0, kHeaders = 1, kResetStream = 3, kContinuation = 9;

  size_t skip_ = kPrefaceBytes;  // bytes left of the present frame
  uint8_t head_[kHeadBytes];     // the part of the next head that has come
  uint8_t head_bytes_ = 0;
};

}  // namespace tidegate::l7
