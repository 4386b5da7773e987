// SPDX-License-Identifier: Apache-2.0
#include "dns/httpdns/flat_json.h"

#include <algorithm>
#include <charconv>

namespace tidegate::dns {
namespace {

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  bool parse(Parameters& members) {
    if (!take('{')) return false;
    if (take('}')) return at_end();
    do {
      std::string name, value;
      if (!string(name) || !take(':') || !(peek() == '"' ? string(value) : word(value))) return false;
      if (!members.add(name, std::move(value))) return false;
    } while (take(','));
    return take('}') && at_end();
  }

 private:
  void skip_blanks() {
    while (!text_.empty() && std::string_view(" \t\r\n").find(text_.front()) != std::string_view::npos) {
      text_.remove_prefix(1);
    }
  }
  bool at_end() {
    skip_blanks();
    return text_.empty();
  }
  char peek() {
    skip_blanks();
    return text_.empty() ? '\0' : text_.front();
  }
  bool take(char wanted) {
    if (peek() != wanted) return false;
    text_.remove_prefix(1);
    return true;
  }

  bool string(std::string& out) {
    if (!take('"')) return false;
    for (;;) {
      const auto plain = std::find_if(text_.begin(), text_.end(), [](char c) {
        return c == '"' || c == '\\' || static_cast<unsigned char>(c) < 0x20;
      });
      out.append(text_.begin(), plain);
      text_.remove_prefix(static_cast<size_t>(plain - text_.begin()));
      if (text_.empty()) return false;
      const char c = text_.front();
      text_.remove_prefix(1);
      if (c == '"') return true;
      if (c != '\\' || !escape(out)) return false;
    }
  }

  bool escape(std::string& out) {
    if (text_.empty()) return false;
    const char c = text_.front();
    text_.remove_prefix(1);
    if (c == '"' || c == '\\' || c == '/') {
      out += c;
      return true;
    }
    uint8_t byte = 0;
    if (c != 'u' || text_.size() < 4 || text_.substr(0, 2) != "00") return false;
    const auto [end, fault] = std::from_chars(text_.data() + 2, text_.data() + 4, byte, 16);
    if (fault != std::errc{} || end != text_.data() + 4 || byte >= 0x80) return false;
    text_.remove_prefix(4);
    out += static_cast<char>(byte);
    return true;
  }

  // A number, true, false or null.
  bool word(std::string& out) {
    while (!text_.empty() && std::string_view(",} \t\r\n").find(text_.front()) == std::string_view::npos) {
      const char c = text_.front();
      const bool plain =
          (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || c == '-' || c == '+' || c == '.' || c == 'E';
      if (!plain) return false;
      out += c;
      text_.remove_prefix(1);
    }
    return !out.empty();
  }

  std::string_view text_;
};

}  // namespace

std::optional<Parameters> parse_flat_json(std::string_view text) {
  Parameters members;
  if (!Parser(text).parse(members)) return std::nullopt;
  return members;
}

}  // namespace tidegate::dns
