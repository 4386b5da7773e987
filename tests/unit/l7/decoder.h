// SPDX-License-Identifier: Apache-2.0
// What compresses, seen from the other side: the decoders of zlib, brotli and zstd, which read a stream in pieces, and
// content for them.
#pragma once

#include <brotli/decode.h>
#include <gtest/gtest.h>
#include <zlib.h>
#include <zstd.h>

#include <string>
#include <string_view>

#include "l7/policy/encoder.h"

namespace tidegate::l7::test {

class Decoder {
 public:
  explicit Decoder(Coding coding) : coding_(coding) {
    if (coding == Coding::gzip) EXPECT_EQ(inflateInit2(&inflate_, 16 + MAX_WBITS), Z_OK);
  }
  ~Decoder() {
    if (coding_ == Coding::gzip) inflateEnd(&inflate_);
    BrotliDecoderDestroyInstance(brotli_);
    ZSTD_freeDCtx(zstd_);
  }
  Decoder(const Decoder&) = delete;
  Decoder& operator=(const Decoder&) = delete;

  // Returns false if these bytes are not part of such a stream.
  bool feed(std::string_view bytes) {
    if (bytes.empty()) return true;  // zstd treats many calls without bytes as an error
    if (coding_ == Coding::gzip) return feed_gzip(bytes);
    return coding_ == Coding::br ? feed_brotli(bytes) : feed_zstd(bytes);
  }
  bool ended() const { return ended_; }
  std::string text;

 private:
  bool feed_gzip(std::string_view bytes) {
    inflate_.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));
    inflate_.avail_in = static_cast<uInt>(bytes.size());
    for (;;) {
      inflate_.next_out = reinterpret_cast<Bytef*>(room_.data());
      inflate_.avail_out = static_cast<uInt>(room_.size());
      const int result = inflate(&inflate_, Z_SYNC_FLUSH);
      text.append(room_.data(), room_.size() - inflate_.avail_out);
      ended_ = result == Z_STREAM_END;
      if (ended_) return inflate_.avail_in == 0;
      if (result != Z_OK && result != Z_BUF_ERROR) return false;
      if (inflate_.avail_in == 0 && inflate_.avail_out > 0) return true;
    }
  }
  bool feed_brotli(std::string_view bytes) {
    size_t left = bytes.size();
    const auto* next = reinterpret_cast<const uint8_t*>(bytes.data());
    for (;;) {
      size_t room = room_.size();
      auto* out = reinterpret_cast<uint8_t*>(room_.data());
      const BrotliDecoderResult result = BrotliDecoderDecompressStream(brotli_, &left, &next, &room, &out, nullptr);
      text.append(room_.data(), room_.size() - room);
      ended_ = result == BROTLI_DECODER_RESULT_SUCCESS;
      if (ended_) return left == 0;
      if (result == BROTLI_DECODER_RESULT_ERROR) return false;
      if (result == BROTLI_DECODER_RESULT_NEEDS_MORE_INPUT) return true;
    }
  }
  bool feed_zstd(std::string_view bytes) {
    ZSTD_inBuffer in{bytes.data(), bytes.size(), 0};
    for (;;) {
      ZSTD_outBuffer out{room_.data(), room_.size(), 0};
      const size_t result = ZSTD_decompressStream(zstd_, &out, &in);
      text.append(room_.data(), out.pos);
      if (ZSTD_isError(result) != 0) return false;
      ended_ = result == 0;
      if (in.pos == in.size && out.pos < out.size) return true;
    }
  }

  const Coding coding_;
  std::string room_ = std::string(64 * 1024, '\0');
  z_stream inflate_{};
  BrotliDecoderState* const brotli_ = BrotliDecoderCreateInstance(nullptr, nullptr, nullptr);
  ZSTD_DCtx* const zstd_ = ZSTD_createDCtx();
  bool ended_ = false;
};

// The whole of a body.
std::string decoded(Coding coding, std::string_view bytes);

// Text like a page's, which shrinks to less than half.
std::string words(size_t bytes, uint64_t seed);
// Random bytes, which do not shrink.
std::string noise(size_t bytes, uint64_t seed);

}  // namespace tidegate::l7::test
