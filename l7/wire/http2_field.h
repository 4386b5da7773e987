// SPDX-License-Identifier: Apache-2.0
// Http2Field: one field of an HTTP/2 header block, with what its texts say (RFC 9113 §8.2). The decoder finds this out
// once for each entry of its table, so a field that comes again is neither looked up nor checked again.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "l7/wire/message.h"

namespace tidegate::l7 {

// The pseudo-header fields of RFC 9113 §8.3 and RFC 8441.
enum class PseudoName : uint8_t { none, authority, method, path, protocol, scheme, status, unknown };

struct NameTraits {
  FieldKind kind = FieldKind::other;
  PseudoName pseudo = PseudoName::none;
  bool valid = true;       // RFC 9113 §8.2.1: a name that a strict HTTP/1 parser would refuse must not become HTTP/1
  bool has_upper = false;  // §8.2.1: this alone makes the message malformed
  bool odd = false;        // is_odd_name()
};
NameTraits traits_of_name(std::string_view name);

// What every byte of a value is. The bits of all bytes are joined by AND; an empty value has all of them.
struct ValueClass {
  static constexpr uint8_t field = 1;      // RFC 9110 §5.5: no control bytes but HTAB; no blank at either end
  static constexpr uint8_t visible = 2;    // no blank either
  static constexpr uint8_t token = 4;      // RFC 9110 §5.6.2
  static constexpr uint8_t authority = 8;  // RFC 3986 §3.2
  static constexpr uint8_t scheme = 16;    // RFC 3986 §3.1, but for its first byte
  static constexpr uint8_t all = 31;
};
uint8_t class_of_value(std::string_view value);

struct Http2Field {
  std::string_view name;
  std::string_view value;
  NameTraits traits;
  uint8_t value_class = 0;
  uint8_t static_name = 0;  // HPACK's static entry with this name, whose text lives as long as the process; 0: none

  bool is(uint8_t value_bits) const { return (value_class & value_bits) == value_bits; }
};

// Of texts that no decoder has looked at. Borrows them.
inline Http2Field http2_field(std::string_view name, std::string_view value) {
  return {name, value, traits_of_name(name), class_of_value(value), 0};
}

}  // namespace tidegate::l7
