// SPDX-License-Identifier: Apache-2.0
// Chunked framing: a body must decode to the same, whole or cut into pieces, and its new encoding must decode to
// itself.
#include <cstdint>
#include <cstdlib>
#include <string>

#include "core/http1.h"

namespace {

using namespace tidegate::http1;

void require(bool holds) {
  if (!holds) std::abort();
}

struct Decoded {
  Status status = Status::incomplete;
  Fault fault = Fault::none;
  std::string body;
};

void feed(ChunkedDecoder& decoder, std::string_view bytes, Decoded& decoded) {
  while (decoded.status == Status::incomplete) {
    const ChunkedDecoder::Step step = decoder.decode(bytes);
    require(step.consumed <= bytes.size() && step.data.size() <= step.consumed);
    decoded.status = step.status;
    decoded.fault = step.fault;
    decoded.body += step.data;
    if (step.consumed == 0) return;
    bytes.remove_prefix(step.consumed);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  ChunkedDecoder whole_decoder;
  Decoded whole;
  feed(whole_decoder, bytes, whole);

  ChunkedDecoder decoder;
  Decoded pieces;
  const size_t piece_bytes = 1 + data[0] % 32;
  for (size_t at = 0; at < bytes.size(); at += piece_bytes) feed(decoder, bytes.substr(at, piece_bytes), pieces);
  require(pieces.status == whole.status && pieces.fault == whole.fault && pieces.body == whole.body);

  if (whole.status != Status::complete || whole.body.empty()) return 0;
  char header[18];
  std::string encoded(header, encode_chunk_header(whole.body.size(), header));
  encoded += whole.body + "\r\n0\r\n\r\n";
  ChunkedDecoder again_decoder;
  Decoded again;
  feed(again_decoder, encoded, again);
  require(again.status == Status::complete && again.body == whole.body);
  return 0;
}
