// SPDX-License-Identifier: Apache-2.0
// What an HpackDecoder and nghttp2's decoder read of the same blocks.
#pragma once

#include <nghttp2/nghttp2.h>

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "l7/h2/hpack_decoder.h"

namespace tidegate::l7 {

using ReadFields = std::vector<std::pair<std::string, std::string>>;

// Reads one block, of which at most `piece` bytes come at a time. None: it is refused.
inline std::optional<ReadFields> read_block(HpackDecoder& decoder, std::string_view block, size_t piece = SIZE_MAX) {
  ReadFields fields;
  decoder.begin_block();
  std::string held;
  do {
    const std::string_view now = block.substr(0, piece);
    block.remove_prefix(now.size());
    // Memory of its own, so that a sanitizer sees what is read beyond it.
    held += now;
    const std::vector<char> input(held.begin(), held.end());
    decoder.set_input({input.data(), input.size()}, block.empty());
    HpackScratch scratch;
    Http2Field field;
    HpackDecoder::Step step;
    while ((step = decoder.next(field, scratch)) == HpackDecoder::Step::field) {
      fields.emplace_back(field.name, field.value);
    }
    if (step == HpackDecoder::Step::failed) return std::nullopt;
    if (step == HpackDecoder::Step::end) return fields;
    held.erase(0, decoder.taken());
  } while (!block.empty());
  return std::nullopt;
}

class NgHttp2Reader {
 public:
  NgHttp2Reader() { nghttp2_hd_inflate_new(&decoder_); }
  ~NgHttp2Reader() { nghttp2_hd_inflate_del(decoder_); }
  NgHttp2Reader(const NgHttp2Reader&) = delete;
  NgHttp2Reader& operator=(const NgHttp2Reader&) = delete;

  std::optional<ReadFields> read(std::string_view block) {
    ReadFields fields;
    const auto* at = reinterpret_cast<const uint8_t*>(block.data());
    const uint8_t* const end = at + block.size();
    for (;;) {
      nghttp2_nv pair;
      int flags = 0;
      const ssize_t taken = nghttp2_hd_inflate_hd2(decoder_, &pair, &flags, at, static_cast<size_t>(end - at), 1);
      if (taken < 0) return std::nullopt;
      at += taken;
      if ((flags & NGHTTP2_HD_INFLATE_EMIT) != 0) {
        fields.emplace_back(std::string(reinterpret_cast<char*>(pair.name), pair.namelen),
                            std::string(reinterpret_cast<char*>(pair.value), pair.valuelen));
      }
      if ((flags & NGHTTP2_HD_INFLATE_FINAL) != 0) break;
      if ((flags & NGHTTP2_HD_INFLATE_EMIT) == 0 && at == end) break;
    }
    nghttp2_hd_inflate_end_headers(decoder_);
    return fields;
  }
  size_t table_bytes() const { return nghttp2_hd_inflate_get_dynamic_table_size(decoder_); }

 private:
  nghttp2_hd_inflater* decoder_ = nullptr;
};

}  // namespace tidegate::l7
