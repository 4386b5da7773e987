// SPDX-License-Identifier: Apache-2.0
// HeadersFrame: one header block that we send, in the frames that carry it (RFC 9113 §6.2, §6.10).
//
// Make it when the frame is sent, not earlier: HpackEncoder tells why.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>

#include "l7/h2/frames.h"
#include "l7/h2/hpack.h"
#include "l7/wire/transport.h"

namespace tidegate::l7 {

class HeadersFrame {
 public:
  // Whether a head of `fields` fields may be sent; `text_bytes` is the sum of their names and values. What a message
  // may have fits. A transport in which less than a block waits has room for it.
  static constexpr bool fits(size_t text_bytes, size_t fields) {
    return HpackEncoder::room_for(text_bytes, fields) <= 2 * kBlockBytes;
  }
  HeadersFrame(HpackEncoder& encoder, size_t text_bytes, size_t fields);
  void add(std::string_view name, std::string_view value, Indexing indexing = Indexing::by_name) {
    end_ = encoder_.add(end_, name, value, indexing);
  }
  // Gathers the frames in `transport`.
  void send(ProxyTransport& transport, int32_t stream, bool ends_stream);

 private:
  HpackEncoder& encoder_;
  std::array<char, 2048> small_;
  std::unique_ptr<char[]> large_;  // for a block that may not fit into small_
  char* begin_;                    // the head of the first frame, and then the block
  char* end_;
};

}  // namespace tidegate::l7
