// SPDX-License-Identifier: Apache-2.0
// HeldHeads: the heads of one stream that wait until the session sends them, in order: interim answers, the answer, its
// trailers. The texts are copied, because the exchange may end before that.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

#include "l7/h2/headers_frame.h"
#include "l7/h2/hpack.h"
#include "l7/wire/transport.h"

namespace tidegate::l7 {

class HeldHeads {
 public:
  // `each` gets a function (name, value, Indexing) and calls it with each field of the head. If there is no room in
  // inline_, it is called a second time. Returns false if the head is too long to be sent.
  template <class Each>
  [[nodiscard]] bool hold(const Each& each) {
    Head head{0, 0};
    char* const begin = &inline_[0] + end_;
    char* const limit = &inline_[0] + kInlineBytes;
    bool fits = more_.empty() && begin + sizeof(Head) <= limit;
    char* out = fits ? begin + sizeof(Head) : limit;
    each([&](std::string_view name, std::string_view value, Indexing indexing) {
      ++head.fields;
      head.text_bytes += static_cast<uint32_t>(name.size() + value.size());
      fits = fits && sizeof(Lengths) + name.size() + value.size() <= static_cast<size_t>(limit - out);
      if (fits) out = put_field(out, name, value, indexing);
    });
    if (fits) {
      put(begin, head);
      end_ = static_cast<uint16_t>(out - &inline_[0]);
      return true;
    }
    if (!HeadersFrame::fits(head.text_bytes, head.fields)) return false;
    const size_t held = more_.size();
    more_.resize(held + sizeof(Head) + head.fields * sizeof(Lengths) + head.text_bytes);
    out = put(more_.data() + held, head);
    each([&out](std::string_view name, std::string_view value, Indexing indexing) {
      out = put_field(out, name, value, indexing);
    });
    return true;
  }
  // Sends the first of them.
  void send_first(HpackEncoder& encoder, ProxyTransport& transport, int32_t stream, bool ends_stream);

 private:
  static constexpr size_t kInlineBytes = 640;  // some ten fields and a short trailer section
  struct Head {
    uint32_t fields;
    uint32_t text_bytes;
  };
  struct Lengths {
    uint32_t value_bytes;
    uint32_t name_bytes : 24;
    Indexing indexing : 8;
  };
  template <class T>
  static char* put(char* out, const T& record) {
    std::memcpy(out, &record, sizeof record);
    return out + sizeof record;
  }
  template <class T>
  static const char* get(const char* in, T& record) {
    std::memcpy(&record, in, sizeof record);
    return in + sizeof record;
  }
  static char* put_field(char* out, std::string_view name, std::string_view value, Indexing indexing) {
    out = put(out, Lengths{static_cast<uint32_t>(value.size()), static_cast<uint32_t>(name.size()), indexing});
    out = std::copy(name.begin(), name.end(), out);
    return std::copy(value.begin(), value.end(), out);
  }
  const char* first() const;
  void drop_until(const char* end);

  std::array<char, kInlineBytes> inline_;
  uint16_t begin_ = 0, end_ = 0;  // what is held in inline_; it is before what is held in more_
  std::string more_;
  size_t more_begin_ = 0;
};

}  // namespace tidegate::l7
