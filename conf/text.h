// SPDX-License-Identifier: Apache-2.0
// Small functions about text that several parts of the document code use.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace tidegate {

// The offset of the first byte that is not well-formed UTF-8 (RFC 3629) or is a control character other than tab and
// line ends. npos if there is none.
size_t find_unreadable(std::string_view text);

// The text without the byte order mark that some editors put in front of it.
std::string_view without_byte_order_mark(std::string_view text);

inline bool is_digit(char c) { return c >= '0' && c <= '9'; }
std::string lower_case(std::string_view text);  // of ASCII letters
// A field's name as CGI and WSGI read it: in lower case, and with '-' for every byte that is not a letter or digit. So
// Content_Length is another spelling of content-length.
std::string field_name_as_read(std::string_view name);

// 010, -007, 0x1f, 0o17, 0b1: some readers take them as decimal, others do not.
bool looks_octal_or_hex(std::string_view text);

// SHA-256 in 64 lower-case hexadecimal digits, which identifies a version.
bool is_version_digest(std::string_view text);

// "0" or digits without a leading zero.
std::optional<uint64_t> parse_decimal(std::string_view text);

// Digits with an optional sign, fraction and exponent (RFC 8259 §6).
bool is_json_number(std::string_view text);

// One reference token of a JSON pointer (RFC 6901 §3).
std::string escape_pointer_step(std::string_view step);
// Takes the next reference token from the front of a JSON pointer. Returns nothing at its end.
std::optional<std::string> take_pointer_step(std::string_view& pointer);

}  // namespace tidegate
