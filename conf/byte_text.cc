// SPDX-License-Identifier: Apache-2.0
#include "conf/byte_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <utility>

namespace tidegate {

namespace {

constexpr std::pair<char, char> kEscapes[] = {{'r', '\r'}, {'n', '\n'}, {'t', '\t'}, {'0', '\0'}, {'\\', '\\'}};
constexpr size_t kHexDigits = 2;

}  // namespace

Result<std::string> bytes_of_text(std::string_view text) {
  std::string bytes;
  while (!text.empty()) {
    const size_t plain = std::min(text.find('\\'), text.size());
    bytes += text.substr(0, plain);
    text.remove_prefix(plain);
    if (text.empty()) break;
    if (text.size() == 1) return fail("a backslash stands at its end: write \\\\ for one");
    const char kind = text[1];
    text.remove_prefix(2);
    if (kind == 'x') {
      unsigned byte = 0;
      const std::string_view digits = text.substr(0, kHexDigits);
      const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), byte, 16);
      if (error != std::errc{} || digits.size() != kHexDigits || end != digits.data() + kHexDigits) {
        return fail("\\x needs two hex digits");
      }
      bytes += static_cast<char>(byte);
      text.remove_prefix(kHexDigits);
      continue;
    }
    bool known = false;
    for (const auto& [letter, byte] : kEscapes) {
      if (letter != kind) continue;
      bytes += byte;
      known = true;
    }
    if (!known) return fail("a backslash stands before something else than r, n, t, 0, x and \\");
  }
  return bytes;
}

std::string text_of_bytes(std::string_view bytes) {
  std::string text;
  for (const char byte : bytes) {
    const auto value = static_cast<uint8_t>(byte);
    if (byte == '\\') {
      text += "\\\\";
    } else if (byte == '\r' || byte == '\n' || byte == '\t') {
      text += byte == '\r' ? "\\r" : byte == '\n' ? "\\n" : "\\t";
    } else if (value < 0x20 || value > 0x7e) {
      text += fmt::format("\\x{:02x}", value);
    } else {
      text += byte;
    }
  }
  return text;
}

}  // namespace tidegate
