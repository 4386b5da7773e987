// SPDX-License-Identifier: Apache-2.0
#include "l7/wire/http2_field.h"

#include <array>

namespace tidegate::l7 {
namespace {

PseudoName pseudo_of(std::string_view name) {
  if (name == ":authority") return PseudoName::authority;
  if (name == ":method") return PseudoName::method;
  if (name == ":path") return PseudoName::path;
  if (name == ":protocol") return PseudoName::protocol;
  if (name == ":scheme") return PseudoName::scheme;
  return name == ":status" ? PseudoName::status : PseudoName::unknown;
}

// The bits of each byte.
constexpr std::array<uint8_t, 256> kByteClasses = [] {
  std::array<uint8_t, 256> classes{};
  const auto in = [](std::string_view set, char c) { return set.find(c) != std::string_view::npos; };
  for (size_t byte = 0; byte < 256; ++byte) {
    const char c = static_cast<char>(byte);
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    const bool visible = byte > 0x20 && byte != 0x7f;
    uint8_t& bits = classes[byte];
    if (visible || c == ' ' || c == '\t') bits |= ValueClass::field;
    if (visible) bits |= ValueClass::visible;
    if (plain || in("!#$%&'*+-.^_`|~", c)) bits |= ValueClass::token;
    if (plain || in("!$%&'()*+,-.:;=@[]_~", c)) bits |= ValueClass::authority;
    if (plain || in("+-.", c)) bits |= ValueClass::scheme;
  }
  return classes;
}();

bool is_blank_byte(char c) { return c == ' ' || c == '\t'; }

}  // namespace

NameTraits traits_of_name(std::string_view name) {
  enum : uint8_t { kOdd = 1, kBad = 2, kUpper = 4 };
  static constexpr std::array<uint8_t, 256> kMarks = [] {
    std::array<uint8_t, 256> marks{};
    marks.fill(kOdd | kBad);
    for (const char c : std::string_view("!#$%&'*+.^_`|~")) marks[static_cast<uint8_t>(c)] = kOdd;  // RFC 9110 §5.6.2
    for (size_t c = 0; c < 128; ++c) {
      if (is_name_char(static_cast<char>(c))) marks[c] = 0;
      if (c >= 'A' && c <= 'Z') marks[c] |= kUpper;
    }
    return marks;
  }();
  NameTraits traits;
  if (!name.empty() && name.front() == ':') {
    traits.pseudo = pseudo_of(name);
    return traits;
  }
  uint8_t seen = name.empty() ? kBad : 0;
  for (const char c : name) seen |= kMarks[static_cast<uint8_t>(c)];
  traits.valid = (seen & kBad) == 0;
  traits.has_upper = (seen & kUpper) != 0;
  traits.odd = (seen & kOdd) != 0;
  if (traits.valid) traits.kind = classify_field(name);
  return traits;
}

uint8_t class_of_value(std::string_view value) {
  uint8_t bits = ValueClass::all;
  for (const char c : value) bits &= kByteClasses[static_cast<uint8_t>(c)];
  const bool blank_at_end = !value.empty() && (is_blank_byte(value.front()) || is_blank_byte(value.back()));
  return blank_at_end ? bits & static_cast<uint8_t>(~ValueClass::field) : bits;
}

}  // namespace tidegate::l7
