// SPDX-License-Identifier: Apache-2.0
// Small things that nghttp2's callbacks of both sides share.
#pragma once

#include <nghttp2/nghttp2.h>

#include <string_view>

#include "l7/h2/hpack.h"
#include "l7/wire/message.h"

namespace tidegate::l7 {

inline std::string_view http2_view(const uint8_t* data, size_t bytes) {
  return {reinterpret_cast<const char*>(data), bytes};
}

// Borrows the texts.
inline nghttp2_nv http2_pair(std::string_view name, std::string_view value, uint8_t flags) {
  const auto bytes = [](std::string_view text) { return reinterpret_cast<uint8_t*>(const_cast<char*>(text.data())); };
  return {bytes(name), bytes(value), name.size(), value.size(), flags};
}

// Bytes of the names and values of Fields.
template <class Fields>
size_t text_bytes_of(const Fields& fields) {
  size_t bytes = 0;
  for (const Field& field : fields) bytes += field.name.size() + field.value.size();
  return bytes;
}

// No two requests share an id. In the compression table it would displace fields that requests share.
inline Indexing indexing_of(FieldKind kind) {
  return kind == FieldKind::x_request_id ? Indexing::name_only : Indexing::by_name;
}

// Tells the encoder of a received SETTINGS frame how large the peer's table may be.
inline void take_table_limit(HpackEncoder& encoder, const nghttp2_settings& settings) {
  for (size_t i = 0; i < settings.niv; ++i) {
    if (settings.iv[i].settings_id == NGHTTP2_SETTINGS_HEADER_TABLE_SIZE) encoder.limit_table(settings.iv[i].value);
  }
}

}  // namespace tidegate::l7
