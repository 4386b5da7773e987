// SPDX-License-Identifier: Apache-2.0
// GrpcWeb: translates one call of gRPC-Web, which browsers speak, into the gRPC call for the backend, and translates
// the answer back. A browser cannot read trailers, so the answer has them at the end of its body. In the text form
// (grpc-web-text) both bodies are base64, which may be padded at any message's end.
//
// Source: "gRPC Web" (PROTOCOL-WEB.md) of the gRPC project. Pure: bytes and heads in, bytes out.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <string_view>

#include "l7/wire/arena.h"
#include "l7/wire/message.h"

namespace tidegate::l7 {

class GrpcWeb {
 public:
  // Null if this is no call of gRPC-Web. Otherwise the request becomes a gRPC request.
  static std::unique_ptr<GrpcWeb> take(RequestHead& request, Arena& arena);

  // A piece of the request's body for the backend. It may be empty although `piece` is not. Valid until the next call.
  std::string_view to_backend(std::string_view piece);
  // The body is not base64, or ended in the middle of a group of four. `at_end`: the body has ended.
  bool broken(bool at_end) const { return broken_ || (at_end && grouped_ != 0); }

  // Changes the answer's head to a head of gRPC-Web. If the backend's answer is not gRPC, the head stays as it is.
  void take_head(ResponseHead& response, Arena& arena);
  // True if the answer's body ends with a frame of trailers.
  bool ends_with_trailers() const { return framed_; }
  // The most bytes that to_client() takes in one call. So its result is at most one block.
  static constexpr size_t kMostBytes = 48 * 1024;
  // Converts a part of the answer's body for the client. The result is valid until the next call.
  std::string_view to_client(std::string_view bytes);
  // The frame of trailers that ends the body, before to_client().
  static std::string trailer_frame(const Trailers& trailers);
  // Content-Type of an answer of our own.
  std::string_view content_type() const { return text_ ? "application/grpc-web-text" : "application/grpc-web"; }

 private:
  explicit GrpcWeb(bool text) : text_(text) {}
  bool take_group();

  const bool text_;
  bool broken_ = false;
  bool translated_ = false;  // the backend's answer is gRPC
  bool framed_ = false;
  std::array<char, 4> group_{};
  size_t grouped_ = 0;  // characters in the present group of four
  std::string made_;    // the result of the last call
};

}  // namespace tidegate::l7
