// SPDX-License-Identifier: Apache-2.0
// The other end of an HpackEncoder: nghttp2's decoder.
#pragma once

#include <nghttp2/nghttp2.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "l7/h2/hpack.h"

namespace tidegate::l7 {

class HpackPeer {
 public:
  using Fields = std::vector<std::pair<std::string, std::string>>;

  HpackPeer() { nghttp2_hd_inflate_new(&decoder_); }
  ~HpackPeer() { nghttp2_hd_inflate_del(decoder_); }
  HpackPeer(const HpackPeer&) = delete;
  HpackPeer& operator=(const HpackPeer&) = delete;

  // As a peer that sends SETTINGS and gets their acknowledgement.
  void limit(HpackEncoder& encoder, size_t bytes) {
    nghttp2_hd_inflate_change_table_size(decoder_, bytes);
    encoder.limit_table(bytes);
  }
  // Returns the fields as this peer reads them; none: it refuses the block.
  std::optional<Fields> sent(HpackEncoder& encoder, const Fields& fields, Indexing indexing = Indexing::by_name) {
    size_t text_bytes = 0;
    for (const auto& [name, value] : fields) text_bytes += name.size() + value.size();
    // Memory of its own, so that a sanitizer sees what is written beyond the room.
    const auto room = std::make_unique<char[]>(HpackEncoder::room_for(text_bytes, fields.size()));
    char* end = encoder.begin(room.get());
    for (const auto& [name, value] : fields) end = encoder.add(end, name, value, indexing);
    block_.assign(room.get(), end);
    return read();
  }
  // Of the last block: its bytes, and for each field whether it may not be put into any table.
  const std::string& block() const { return block_; }
  const std::vector<bool>& never_indexed() const { return never_indexed_; }
  size_t table_bytes() const { return nghttp2_hd_inflate_get_dynamic_table_size(decoder_); }

 private:
  std::optional<Fields> read() {
    Fields read;
    never_indexed_.clear();
    const auto* at = reinterpret_cast<const uint8_t*>(block_.data());
    const uint8_t* const end = at + block_.size();
    int flags = 0;
    do {
      nghttp2_nv pair;
      const ssize_t taken = nghttp2_hd_inflate_hd2(decoder_, &pair, &flags, at, static_cast<size_t>(end - at), 1);
      if (taken < 0) return std::nullopt;
      at += taken;
      if ((flags & NGHTTP2_HD_INFLATE_EMIT) == 0) continue;
      read.emplace_back(std::string(reinterpret_cast<char*>(pair.name), pair.namelen),
                        std::string(reinterpret_cast<char*>(pair.value), pair.valuelen));
      never_indexed_.push_back((pair.flags & NGHTTP2_NV_FLAG_NO_INDEX) != 0);
    } while ((flags & NGHTTP2_HD_INFLATE_FINAL) == 0 && (at != end || (flags & NGHTTP2_HD_INFLATE_EMIT) != 0));
    nghttp2_hd_inflate_end_headers(decoder_);
    return read;
  }

  nghttp2_hd_inflater* decoder_ = nullptr;
  std::string block_;
  std::vector<bool> never_indexed_;
};

}  // namespace tidegate::l7
