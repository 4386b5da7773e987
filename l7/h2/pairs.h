// SPDX-License-Identifier: Apache-2.0
// nghttp2's forms of our texts. Nothing is copied: a pair borrows its name and value.
#pragma once

#include <nghttp2/nghttp2.h>

#include <array>
#include <string_view>

#include "l7/limits.h"

namespace tidegate::l7 {

inline std::string_view http2_view(const uint8_t* data, size_t bytes) {
  return {reinterpret_cast<const char*>(data), bytes};
}

inline nghttp2_nv http2_pair(std::string_view name, std::string_view value, uint8_t flags = NGHTTP2_NV_FLAG_NONE) {
  const auto bytes = [](std::string_view text) { return reinterpret_cast<uint8_t*>(const_cast<char*>(text.data())); };
  return {bytes(name), bytes(value), name.size(), value.size(), flags};
}

// For a pair whose texts live until its frame is made, and whose name is in lower case. nghttp2 copies nothing.
constexpr uint8_t kHttp2Borrowed = NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE;

// How the id of a request is sent; `request` is the number of the request on its connection. No two requests share an
// id. In the compression table it would displace fields that requests share. But one id in many goes into the table,
// so that the others can refer to its name by a number.
inline uint8_t id_indexing(uint64_t request) {
  constexpr uint64_t kOneInSoMany = 64;
  return request % kOneInSoMany == 1 ? NGHTTP2_NV_FLAG_NONE : NGHTTP2_NV_FLAG_NO_INDEX;
}

// Call it in the callback that reads a body and returns NGHTTP2_DATA_FLAG_NO_END_STREAM. `lines`: "name: value\r\n"
// each.
inline void submit_http2_trailers(nghttp2_session* session, int32_t stream, std::string_view lines) {
  std::array<nghttp2_nv, kTrailerFields> pairs;
  size_t count = 0;
  while (!lines.empty() && count < pairs.size()) {
    const std::string_view line = lines.substr(0, lines.find("\r\n"));
    lines.remove_prefix(line.size() + 2);
    const size_t colon = line.find(": ");
    pairs[count++] = http2_pair(line.substr(0, colon), line.substr(colon + 2));
  }
  nghttp2_submit_trailer(session, stream, pairs.data(), count);
}

}  // namespace tidegate::l7
