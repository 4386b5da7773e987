// SPDX-License-Identifier: Apache-2.0
// Compresses any bytes in pieces of any sizes, with flushes in between, by each coding. The libraries' decoders must
// get the same bytes back, and after each flush everything so far. Also reads any Accept-Encoding.
#include <brotli/decode.h>
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "l7/policy/accept_encoding.h"
#include "l7/policy/encoder.h"

namespace {

using namespace tidegate;
using namespace tidegate::l7;

void demand(bool holds) {
  if (!holds) std::abort();
}

struct Collect final : Encoder::Sink {
  void take(std::string_view bytes) override {
    demand(bytes.size() <= kBlockBytes);
    out += bytes;
  }
  std::string out;
};

std::string g_room(256 * 1024, '\0');

// The decoded beginning of a stream. `ended`: the stream is complete.
std::string gunzip(const std::string& bytes, bool& ended) {
  z_stream stream{};
  demand(inflateInit2(&stream, 16 + MAX_WBITS) == Z_OK);
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));
  stream.avail_in = static_cast<uInt>(bytes.size());
  stream.next_out = reinterpret_cast<Bytef*>(g_room.data());
  stream.avail_out = static_cast<uInt>(g_room.size());
  const int result = inflate(&stream, Z_SYNC_FLUSH);
  demand(result == Z_OK || result == Z_STREAM_END || result == Z_BUF_ERROR);
  ended = result == Z_STREAM_END && stream.avail_in == 0;
  std::string out = g_room.substr(0, g_room.size() - stream.avail_out);
  inflateEnd(&stream);
  return out;
}

std::string unbrotli(const std::string& bytes, bool& ended) {
  BrotliDecoderState* const state = BrotliDecoderCreateInstance(nullptr, nullptr, nullptr);
  size_t left = bytes.size(), room = g_room.size();
  const auto* in = reinterpret_cast<const uint8_t*>(bytes.data());
  auto* next = reinterpret_cast<uint8_t*>(g_room.data());
  const BrotliDecoderResult result = BrotliDecoderDecompressStream(state, &left, &in, &room, &next, nullptr);
  demand(result != BROTLI_DECODER_RESULT_ERROR);
  ended = result == BROTLI_DECODER_RESULT_SUCCESS && left == 0;
  BrotliDecoderDestroyInstance(state);
  return g_room.substr(0, g_room.size() - room);
}

std::string unzstd(const std::string& bytes, bool& ended) {
  ZSTD_DCtx* const context = ZSTD_createDCtx();
  ZSTD_inBuffer in{bytes.data(), bytes.size(), 0};
  ZSTD_outBuffer out{g_room.data(), g_room.size(), 0};
  ended = false;
  while (in.pos < in.size && !ended) {
    const size_t result = ZSTD_decompressStream(context, &out, &in);
    demand(ZSTD_isError(result) == 0);
    ended = result == 0;
  }
  ended = ended && in.pos == in.size;
  ZSTD_freeDCtx(context);
  return g_room.substr(0, out.pos);
}

void check(Coding coding, const std::string& bytes, std::string_view given, bool whole) {
  bool ended = false;
  const std::string text = coding == Coding::gzip ? gunzip(bytes, ended)
                           : coding == Coding::br ? unbrotli(bytes, ended)
                                                  : unzstd(bytes, ended);
  demand(text == given && ended == whole);
}

}  // namespace

// A byte for the coding, a line of Accept-Encoding, then pieces: a byte for the size and the flush, and the bytes.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static EncoderPool encoders;
  std::string_view rest(reinterpret_cast<const char*>(data), size);
  if (rest.size() < 2 || rest.size() > 60'000) return 0;
  constexpr Coding kAll[] = {Coding::gzip, Coding::br, Coding::zstd};
  const Coding coding = kAll[static_cast<uint8_t>(rest[0]) % 3];
  rest.remove_prefix(1);
  const std::string_view accept = rest.substr(0, rest.find('\n'));
  rest.remove_prefix(std::min(accept.size() + 1, rest.size()));
  FieldList fields;
  fields.add({"accept-encoding", accept});
  const Coding chosen = policy::choose_coding(fields, {coding});
  demand(chosen == coding || chosen == Coding::identity);

  const EncoderPool::Lease encoder = encoders.lease(coding);
  Collect sink;
  std::string given;
  for (int pieces = 0; !rest.empty() && pieces < 40; ++pieces) {
    const auto head = static_cast<uint8_t>(rest[0]);
    rest.remove_prefix(1);
    // Pieces are repeated, so that few bytes give much content.
    const std::string_view piece = rest.substr(0, head % 64);
    rest.remove_prefix(piece.size());
    std::string repeated;
    for (int i = 0; i <= (head & 0x40 ? 60 : 0); ++i) repeated += piece;
    given += repeated;
    const bool flush = (head & 0x80) != 0;
    encoder->encode(repeated, flush ? Encoder::End::flush : Encoder::End::none, sink);
    if (flush) check(coding, sink.out, given, false);
  }
  encoder->encode({}, Encoder::End::finish, sink);
  check(coding, sink.out, given, true);
  return 0;
}
