// SPDX-License-Identifier: Apache-2.0
#include "l7/exchange/grpc_web.h"

#include "core/crypto.h"

namespace tidegate::l7 {
namespace {

constexpr std::string_view kGrpc = "application/grpc";
constexpr std::string_view kWeb = "-web";
constexpr std::string_view kText = "-text";

// What follows "application/grpc" or "application/grpc-web": nothing, a message format, or parameters.
bool is_suffix(std::string_view rest) { return rest.empty() || rest.front() == '+' || rest.front() == ';'; }

bool cut_prefix(std::string_view& text, std::string_view prefix) {
  if (!text.starts_with(prefix)) return false;
  text.remove_prefix(prefix.size());
  return true;
}

std::string_view join(std::string_view a, std::string_view b, Arena& arena) {
  return arena.copy(std::string(a).append(b));
}

// 0 to 63, or -1.
int value_of(char c) {
  if (c >= 'A' && c <= 'Z') return c - 'A';
  if (c >= 'a' && c <= 'z') return c - 'a' + 26;
  if (c >= '0' && c <= '9') return c - '0' + 52;
  return c == '+' ? 62 : c == '/' ? 63 : -1;
}

void set_content_type(FieldList& fields, std::string_view value) {
  fields.remove_named("content-type");
  fields.add_own("Content-Type", "content-type", value, FieldKind::other);
}

}  // namespace

std::unique_ptr<GrpcWeb> GrpcWeb::take(RequestHead& request, Arena& arena) {
  const Field* const type = request.fields.find("content-type");
  if (request.method != "POST" || type == nullptr) return nullptr;
  std::string_view rest = type->value;
  if (!cut_prefix(rest, kGrpc) || !cut_prefix(rest, kWeb)) return nullptr;
  const bool text = cut_prefix(rest, kText);
  if (!is_suffix(rest)) return nullptr;
  set_content_type(request.fields, join(kGrpc, rest, arena));
  request.takes_trailers = true;  // TE: trailers, which gRPC servers require
  if (text && request.body == BodyKind::known) {
    request.body = BodyKind::unknown;
    request.content_length = 0;
  }
  return std::unique_ptr<GrpcWeb>(new GrpcWeb(text));
}

std::string_view GrpcWeb::to_backend(std::string_view piece) {
  if (!text_) return piece;
  made_.clear();
  for (const char c : piece) {
    group_[grouped_++] = c;
    if (grouped_ < group_.size()) continue;
    grouped_ = 0;
    if (!take_group()) {
      broken_ = true;
      return {};
    }
  }
  return made_;
}

// RFC 4648 §4.
bool GrpcWeb::take_group() {
  const size_t padding = group_[3] != '=' ? 0 : group_[2] != '=' ? 1 : 2;
  uint32_t bits = 0;
  for (size_t i = 0; i < group_.size(); ++i) {
    const int value = i < group_.size() - padding ? value_of(group_[i]) : 0;
    if (value < 0) return false;
    bits = bits << 6 | static_cast<uint32_t>(value);
  }
  for (size_t i = 0; i + padding < 3; ++i) made_.push_back(static_cast<char>(bits >> (16 - 8 * i)));
  return true;
}

void GrpcWeb::take_head(ResponseHead& response, Arena& arena) {
  const Field* const type = response.fields.find("content-type");
  std::string_view rest = type == nullptr ? std::string_view() : type->value;
  translated_ = cut_prefix(rest, kGrpc) && is_suffix(rest);
  if (!translated_) return;
  set_content_type(response.fields, join(content_type(), rest, arena));
  framed_ = response.body != BodyKind::none;  // if there is no body, the head has the status
  if (!framed_) return;
  response.body = BodyKind::unknown;
  response.has_content_length = false;
}

std::string_view GrpcWeb::to_client(std::string_view bytes) {
  if (!text_ || !translated_) return bytes;
  made_ = base64_encode(bytes);
  return made_;
}

std::string GrpcWeb::trailer_frame(const Trailers& trailers) {
  std::string lines;
  for (const Field& field : trailers) lines.append(field.name).append(": ").append(field.value).append("\r\n");
  std::string frame(1, '\x80');
  for (int shift = 24; shift >= 0; shift -= 8) frame.push_back(static_cast<char>(lines.size() >> shift));
  return frame + lines;
}

}  // namespace tidegate::l7
