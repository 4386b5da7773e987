// SPDX-License-Identifier: Apache-2.0
#include "l7/h2/headers_frame.h"

#include <algorithm>

namespace tidegate::l7 {

HeadersFrame::HeadersFrame(HpackEncoder& encoder, size_t text_bytes, size_t fields) : encoder_(encoder) {
  const size_t room = kFrameHeadBytes + HpackEncoder::room_for(text_bytes, fields);
  if (room > small_.size()) large_ = std::make_unique_for_overwrite<char[]>(room);
  begin_ = large_ ? large_.get() : small_.data();
  end_ = encoder_.begin(begin_ + kFrameHeadBytes);
}

void HeadersFrame::send(ProxyTransport& transport, int32_t stream, bool ends_stream) {
  const char* next = begin_ + kFrameHeadBytes;
  const auto payload = [&] { return std::min<size_t>(static_cast<size_t>(end_ - next), kMostPayloadBytes); };
  const auto last = [&] { return next + payload() == end_ ? FrameFlags::end_headers : uint8_t{0}; };
  const auto put = [&](char* out, FrameType type, uint8_t flags) {
    put_frame_head(out, {static_cast<uint32_t>(payload()), type, flags, stream});
  };
  const uint8_t ends = ends_stream ? FrameFlags::end_stream : uint8_t{0};
  put(begin_, FrameType::headers, last() | ends);
  transport.queue({begin_, kFrameHeadBytes + payload()});
  for (next += payload(); next < end_; next += payload()) {
    char continuation[kFrameHeadBytes];
    put(continuation, FrameType::continuation, last());
    transport.queue({continuation, kFrameHeadBytes});
    transport.queue({next, payload()});
  }
}

}  // namespace tidegate::l7
