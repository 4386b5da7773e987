// SPDX-License-Identifier: Apache-2.0
// Calls of gRPC-Web over any bytes. However the text form is cut, the backend gets the same bytes; what was made for a
// client reads as it was; the frame of trailers has the length that it says. Input: content type, line feed, body. The
// body's first byte says how the rest is cut.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>

#include "core/crypto.h"
#include "l7/exchange/grpc_web.h"

namespace {

using namespace tidegate;
using namespace tidegate::l7;

void need(bool holds) {
  if (!holds) std::abort();
}

std::unique_ptr<GrpcWeb> take(std::string_view type, Arena& arena) {
  RequestHead request;
  request.method = "POST";
  request.body = BodyKind::known;
  request.content_length = 1;
  request.fields.add_own("Content-Type", "content-type", type, FieldKind::other);
  std::unique_ptr<GrpcWeb> web = GrpcWeb::take(request, arena);
  const std::string_view now = request.fields.find("content-type")->value;
  need(request.fields.size() == 1);
  need(web ? now.starts_with("application/grpc") && !now.starts_with("application/grpc-web") : now == type);
  return web;
}

struct Decoded {
  std::string bytes;
  bool broken;
  bool operator==(const Decoded&) const = default;
};

Decoded decode(std::string_view type, std::string_view body, size_t piece_bytes) {
  Arena arena;
  const std::unique_ptr<GrpcWeb> web = take(type, arena);
  Decoded decoded{};
  while (!body.empty() && !web->broken(false)) {
    const size_t now = std::min(piece_bytes, body.size());
    decoded.bytes += web->to_backend(body.substr(0, now));
    body.remove_prefix(now);
  }
  decoded.broken = web->broken(true);
  if (decoded.broken) decoded.bytes.clear();  // how much has passed until then depends on the pieces
  return decoded;
}

void check_trailers(std::string_view value) {
  Arena arena;
  Trailers trailers;
  need(trailers.add(arena, {"grpc-message", value}));
  const std::string frame = GrpcWeb::trailer_frame(trailers);
  need(frame.size() >= 5 && frame[0] == '\x80');
  size_t length = 0;
  for (size_t i = 1; i < 5; ++i) length = length << 8 | static_cast<uint8_t>(frame[i]);
  need(length == frame.size() - 5);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t line = input.find('\n');
  if (line == std::string_view::npos || line + 1 == size) return 0;
  const std::string_view type = input.substr(0, line), body = input.substr(line + 2);
  const size_t piece_bytes = 1 + static_cast<uint8_t>(input[line + 1]) % 7;
  check_trailers(body);

  Arena arena;
  const std::unique_ptr<GrpcWeb> web = take(type, arena);
  if (!web) return 0;
  const Decoded whole = decode(type, body, SIZE_MAX);
  need(whole == decode(type, body, piece_bytes));
  const bool text = web->content_type() == "application/grpc-web-text";
  need(text || (!whole.broken && whole.bytes == body));

  ResponseHead response;
  response.body = BodyKind::unknown;
  response.fields.add_own("Content-Type", "content-type", "application/grpc", FieldKind::other);
  web->take_head(response, arena);
  need(web->ends_with_trailers());
  std::string sent(web->to_client(body));
  need(decode(type, sent, piece_bytes) == Decoded{std::string(body), false});
  return 0;
}
