// SPDX-License-Identifier: Apache-2.0
#include "l7/h2/held_heads.h"

#include "core/assert.h"

namespace tidegate::l7 {

const char* HeldHeads::first() const {
  if (begin_ < end_) return &inline_[begin_];
  return more_begin_ < more_.size() ? more_.data() + more_begin_ : nullptr;
}

void HeldHeads::drop_until(const char* end) {
  if (begin_ < end_) {
    begin_ = static_cast<uint16_t>(end - &inline_[0]);
    if (begin_ == end_) begin_ = end_ = 0;
    return;
  }
  more_begin_ = static_cast<size_t>(end - more_.data());
  if (more_begin_ < more_.size()) return;
  more_.clear();
  more_begin_ = 0;
}

void HeldHeads::send_first(HpackEncoder& encoder, ProxyTransport& transport, int32_t stream, bool ends_stream) {
  const char* next = first();
  TIDEGATE_ASSERT(next != nullptr, "a head that the session sends is held");
  Head head;
  next = get(next, head);
  HeadersFrame out(encoder, head.text_bytes, head.fields);
  for (uint32_t i = 0; i < head.fields; ++i) {
    Lengths lengths;
    next = get(next, lengths);
    const std::string_view name(next, lengths.name_bytes), value(next + lengths.name_bytes, lengths.value_bytes);
    out.add(name, value, lengths.indexing);
    next = value.data() + value.size();
  }
  out.send(transport, stream, ends_stream);
  drop_until(next);
}

}  // namespace tidegate::l7
