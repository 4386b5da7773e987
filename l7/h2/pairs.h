// SPDX-License-Identifier: Apache-2.0
// nghttp2's forms of our texts. Nothing is copied: a pair borrows its name and value.
#pragma once

#include <nghttp2/nghttp2.h>

#include <string_view>

namespace tidegate::l7 {

inline std::string_view http2_view(const uint8_t* data, size_t bytes) {
  return {reinterpret_cast<const char*>(data), bytes};
}

inline nghttp2_nv http2_pair(std::string_view name, std::string_view value, uint8_t flags = NGHTTP2_NV_FLAG_NONE) {
  const auto bytes = [](std::string_view text) { return reinterpret_cast<uint8_t*>(const_cast<char*>(text.data())); };
  return {bytes(name), bytes(value), name.size(), value.size(), flags};
}

}  // namespace tidegate::l7
