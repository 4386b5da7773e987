// SPDX-License-Identifier: Apache-2.0
// HeadersFrame: one header block that we send, in the frames that carry it (RFC 9113 §6.2, §6.10).
//
// nghttp2 decides when a HEADERS frame is sent, and keeps the stream's state. It gets no fields, so the frame that it
// makes is empty, and HeadersFrame is sent instead of it.
//
// Make it when nghttp2 says that its frame is sent: HpackEncoder tells why.
#pragma once

#include <nghttp2/nghttp2.h>

#include <array>
#include <cstddef>
#include <memory>
#include <string_view>

#include "l7/h2/hpack.h"
#include "l7/wire/transport.h"

namespace tidegate::l7 {

class HeadersFrame {
 public:
  // Whether a head of `fields` fields may be sent in this way; `text_bytes` is the sum of their names and values.
  // nghttp2 sends longer ones itself, without the peer's table, which is HpackEncoder's alone.
  static constexpr bool fits(size_t text_bytes, size_t fields) {
    return HpackEncoder::room_for(text_bytes, fields) <= kBlockBytes;
  }
  HeadersFrame(HpackEncoder& encoder, size_t text_bytes, size_t fields);
  void add(std::string_view name, std::string_view value, Indexing indexing = Indexing::by_name) {
    end_ = encoder_.add(end_, name, value, indexing);
  }
  // Gathers the frames in `transport`. `head` is the head of nghttp2's frame.
  void send(ProxyTransport& transport, const nghttp2_frame_hd& head);

 private:
  static constexpr size_t kHeadBytes = 9;
  static constexpr size_t kMostPayload = 16'384;  // every peer takes this much (RFC 9113 §4.2)

  HpackEncoder& encoder_;
  std::array<char, 2048> small_;
  std::unique_ptr<char[]> large_;  // for a block that may not fit into small_
  char* begin_;                    // the head of the first frame, and then the block
  char* end_;
};

}  // namespace tidegate::l7
