// SPDX-License-Identifier: Apache-2.0
// Http2Session judged by nghttp2: both get the same frames, one after the other, and must say the same of each:
// accepted, a fault of the stream, or a fault of the connection, with the same code; and the same heads, content and
// ends.
//
// The frames and what our side does meanwhile (requests, answers, resets) are made of any bytes, so that a fuzzer can
// choose them. Most of what comes of random bytes is near a valid exchange.
#pragma once

#include <cstdint>
#include <string>

namespace tidegate::l7 {

// Returns an empty text if both agree on all frames that `data` stands for. Otherwise it says where they do not, after
// the frames that led there. It stops where they differ on purpose: http2_judge.cc has a table of why.
std::string judge_http2(const uint8_t* data, size_t bytes);

}  // namespace tidegate::l7
