// SPDX-License-Identifier: Apache-2.0
#include "l7/h2/headers_frame.h"

#include <algorithm>

namespace tidegate::l7 {
namespace {

// RFC 9113 §4.1.
void put_head(char* out, size_t payload, uint8_t type, uint8_t flags, int32_t stream) {
  const auto id = static_cast<uint32_t>(stream);
  const uint32_t numbers[] = {static_cast<uint32_t>(payload) << 8 | type, uint32_t{flags} << 24 | id >> 8};
  for (const uint32_t number : numbers) {
    for (int shift = 24; shift >= 0; shift -= 8) *out++ = static_cast<char>(number >> shift);
  }
  *out = static_cast<char>(id);
}

}  // namespace

HeadersFrame::HeadersFrame(HpackEncoder& encoder, size_t text_bytes, size_t fields) : encoder_(encoder) {
  const size_t room = kHeadBytes + HpackEncoder::room_for(text_bytes, fields);
  if (room > small_.size()) large_ = std::make_unique_for_overwrite<char[]>(room);
  begin_ = large_ ? large_.get() : small_.data();
  end_ = encoder_.begin(begin_ + kHeadBytes);
}

void HeadersFrame::send(ProxyTransport& transport, const nghttp2_frame_hd& head) {
  const char* next = begin_ + kHeadBytes;
  const auto payload = [&] { return std::min<size_t>(static_cast<size_t>(end_ - next), kMostPayload); };
  const auto last = [&] { return next + payload() == end_; };
  constexpr uint8_t kEndHeaders = NGHTTP2_FLAG_END_HEADERS, kEndStream = NGHTTP2_FLAG_END_STREAM;
  const uint8_t flags = head.flags & kEndStream;
  put_head(begin_, payload(), NGHTTP2_HEADERS, last() ? flags | kEndHeaders : flags, head.stream_id);
  transport.queue({begin_, kHeadBytes + payload()});
  for (next += payload(); next < end_; next += payload()) {
    char continuation[kHeadBytes];
    put_head(continuation, payload(), NGHTTP2_CONTINUATION, last() ? kEndHeaders : uint8_t{0}, head.stream_id);
    transport.queue({continuation, kHeadBytes});
    transport.queue({next, payload()});
  }
}

}  // namespace tidegate::l7
