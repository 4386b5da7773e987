// SPDX-License-Identifier: Apache-2.0
// Trailer sections (RFC 9110 §6.5).
#include <algorithm>
#include <iterator>
#include <new>

#include "l7/limits.h"
#include "l7/wire/message.h"
#include "l7/wire/transport.h"

namespace tidegate::l7 {
namespace {

// Further fields that are never trailers, beside those that classify_field() knows.
constexpr std::string_view kNeverTrailers[] = {
    "age",
    "authorization",
    "cache-control",
    "content-encoding",
    "content-range",
    "content-type",
    "expires",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "location",
    "max-forwards",
    "pragma",
    "proxy-authorization",
    "proxy-authenticate",
    "range",
    "retry-after",
    "set-cookie",
    "vary",
    "warning",
    "www-authenticate",
};

}  // namespace

bool Trailers::add(Arena& arena, const Field& field) {
  if (count_ == kTrailerFields) return false;
  if (fields_ == nullptr) fields_ = reinterpret_cast<Field*>(arena.allocate_aligned(kTrailerFields * sizeof(Field)));
  new (&fields_[count_++]) Field(field);
  return true;
}

bool may_be_trailer(std::string_view lower_name, FieldKind kind) {
  if (kind != FieldKind::other || lower_name.empty() || lower_name.front() == ':') return false;
  return std::find(std::begin(kNeverTrailers), std::end(kNeverTrailers), lower_name) == std::end(kNeverTrailers);
}

bool trailers_from_http1(std::string_view lines, Arena& arena, Trailers& out) {
  while (!lines.empty()) {
    const size_t end = lines.find("\r\n");
    const std::string_view line = lines.substr(0, end);
    lines.remove_prefix(std::min(line.size() + 2, lines.size()));
    const size_t colon = line.find(':');
    std::string_view value = line.substr(std::min(colon + 1, line.size()));
    const size_t begin = std::min(value.find_first_not_of(" \t"), value.size());
    value = value.substr(begin, value.find_last_not_of(" \t") + 1 - begin);
    const std::string_view spelt = arena.copy(line.substr(0, colon)), lower = arena.copy_lower(spelt);
    const FieldKind kind = classify_field(lower);
    if (!may_be_trailer(lower, kind)) continue;
    if (!out.add(arena, {lower, arena.copy(value), kind, is_odd_name(lower), spelt})) return false;
  }
  return true;
}

void queue_last_chunk(ProxyTransport& transport, const Trailers& trailers) {
  if (trailers.empty()) {
    transport.queue("0\r\n\r\n");
    return;
  }
  transport.queue("0\r\n");
  for (const Field& field : trailers) {
    transport.queue(field.written_name());
    transport.queue(": ");
    transport.queue(field.value);
    transport.queue("\r\n");
  }
  transport.queue("\r\n");
}

}  // namespace tidegate::l7
