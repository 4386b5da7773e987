// SPDX-License-Identifier: Apache-2.0
// Percent-encoding (RFC 3986 §2.1), and the value of a hex digit. All rooms use these functions.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace tidegate {

// The value of a hex digit of either case, or -1.
constexpr int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  const char lower = static_cast<char>(c | 0x20);
  return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

// Every byte except the unreserved characters of RFC 3986 §2.3 becomes %XX, in upper case.
std::string percent_encode(std::string_view text);

// Decodes %XX in a path segment or a query value. Returns nullopt for a malformed escape. '+' becomes a space in
// queries alone.
std::optional<std::string> percent_decode(std::string_view text, bool plus_is_space);

}  // namespace tidegate
