// SPDX-License-Identifier: Apache-2.0
#include "l7/policy/json_scan.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "l7/limits.h"

namespace tidegate::l7::policy {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_hex(char c) { return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); }

bool is_space(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }

void skip_space(std::string_view& text) {
  while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
}

bool take(std::string_view& text, char c) {
  if (text.empty() || text.front() != c) return false;
  text.remove_prefix(1);
  return true;
}

// Each of these takes its value from the beginning of `text`.
bool take_string(std::string_view& text) {
  if (!take(text, '"')) return false;
  for (;;) {
    const auto ends = [](char c) { return c == '"' || c == '\\' || static_cast<unsigned char>(c) < 0x20; };
    text.remove_prefix(static_cast<size_t>(std::find_if(text.begin(), text.end(), ends) - text.begin()));
    if (take(text, '"')) return true;
    if (!take(text, '\\') || text.empty()) return false;
    const char escaped = text.front();
    text.remove_prefix(1);
    if (escaped == 'u') {
      if (text.size() < 4 || !std::all_of(text.begin(), text.begin() + 4, is_hex)) return false;
      text.remove_prefix(4);
    } else if (std::string_view("\"\\/bfnrt").find(escaped) == std::string_view::npos) {
      return false;
    }
  }
}

bool take_digits(std::string_view& text) {
  const size_t before = text.size();
  while (!text.empty() && is_digit(text.front())) text.remove_prefix(1);
  return text.size() != before;
}

bool take_number(std::string_view& text) {
  take(text, '-');
  const bool zero = !text.empty() && text.front() == '0';
  if (zero) {
    text.remove_prefix(1);
  } else if (!take_digits(text)) {
    return false;
  }
  if (take(text, '.') && !take_digits(text)) return false;
  if (take(text, 'e') || take(text, 'E')) {
    if (!take(text, '+')) take(text, '-');
    if (!take_digits(text)) return false;
  }
  return true;
}

bool take_literal(std::string_view& text) {
  for (const std::string_view word : {"true", "false", "null"}) {
    if (!text.starts_with(word)) continue;
    text.remove_prefix(word.size());
    return true;
  }
  return false;
}

bool take_value(std::string_view& text, int depth, JsonView& out);

bool take_container(std::string_view& text, int depth, bool object) {
  if (depth == kJsonDepth) return false;
  const char end = object ? '}' : ']';
  text.remove_prefix(1);
  skip_space(text);
  if (take(text, end)) return true;
  for (;;) {
    JsonView inner;
    if (object) {
      if (!take_string(text)) return false;
      skip_space(text);
      if (!take(text, ':')) return false;
      skip_space(text);
    }
    if (!take_value(text, depth + 1, inner)) return false;
    skip_space(text);
    if (take(text, end)) return true;
    if (!take(text, ',')) return false;
    skip_space(text);
  }
}

bool take_value(std::string_view& text, int depth, JsonView& out) {
  if (text.empty()) return false;
  const std::string_view begin = text;
  bool good = false;
  switch (text.front()) {
    case '{':
      out.kind = JsonView::Kind::object;
      good = take_container(text, depth, true);
      break;
    case '[':
      out.kind = JsonView::Kind::array;
      good = take_container(text, depth, false);
      break;
    case '"':
      out.kind = JsonView::Kind::string;
      good = take_string(text);
      break;
    case 't':
    case 'f':
    case 'n':
      out.kind = JsonView::Kind::literal;
      good = take_literal(text);
      break;
    default:
      out.kind = JsonView::Kind::number;
      good = take_number(text);
  }
  out.text = begin.substr(0, begin.size() - text.size());
  return good;
}

std::optional<uint32_t> hex4(std::string_view text) {
  uint32_t value = 0;
  if (text.size() < 4) return std::nullopt;
  const auto [end, error] = std::from_chars(text.data(), text.data() + 4, value, 16);
  if (error != std::errc() || end != text.data() + 4) return std::nullopt;
  return value;
}

char* write_utf8(uint32_t code, char* out) {
  const auto byte = [](uint32_t value) { return static_cast<char>(value); };
  if (code < 0x80) {
    *out++ = byte(code);
  } else if (code < 0x800) {
    *out++ = byte(0xc0 | code >> 6);
    *out++ = byte(0x80 | (code & 0x3f));
  } else if (code < 0x10000) {
    *out++ = byte(0xe0 | code >> 12);
    *out++ = byte(0x80 | (code >> 6 & 0x3f));
    *out++ = byte(0x80 | (code & 0x3f));
  } else {
    *out++ = byte(0xf0 | code >> 18);
    *out++ = byte(0x80 | (code >> 12 & 0x3f));
    *out++ = byte(0x80 | (code >> 6 & 0x3f));
    *out++ = byte(0x80 | (code & 0x3f));
  }
  return out;
}

// The code point of \uXXXX at the beginning of `text`, after the 'u'. A pair of surrogates is one code point.
std::optional<uint32_t> take_escape(std::string_view& text) {
  const std::optional<uint32_t> first = hex4(text);
  if (!first) return std::nullopt;
  text.remove_prefix(4);
  if (*first < 0xd800 || *first > 0xdfff) return first;
  if (*first >= 0xdc00 || !text.starts_with("\\u")) return std::nullopt;
  const std::optional<uint32_t> second = hex4(text.substr(2));
  if (!second || *second < 0xdc00 || *second > 0xdfff) return std::nullopt;
  text.remove_prefix(6);
  return 0x10000 + ((*first - 0xd800) << 10) + (*second - 0xdc00);
}

}  // namespace

std::optional<JsonView> scan_json(std::string_view text) {
  JsonView value;
  skip_space(text);
  if (!take_value(text, 0, value)) return std::nullopt;
  skip_space(text);
  return text.empty() ? std::optional(value) : std::nullopt;
}

JsonWalk::JsonWalk(const JsonView& container) : object_(container.kind == JsonView::Kind::object) {
  if (object_ || container.kind == JsonView::Kind::array) {
    rest_ = container.text.substr(1, container.text.size() - 2);
    skip_space(rest_);
  }
}

bool JsonWalk::next() {
  if (rest_.empty()) return false;
  if (object_) {
    const std::string_view begin = rest_;
    if (!take_string(rest_)) return false;
    name_ = begin.substr(1, begin.size() - rest_.size() - 2);
    skip_space(rest_);
    take(rest_, ':');
    skip_space(rest_);
  }
  if (!take_value(rest_, 0, value_)) return false;
  skip_space(rest_);
  take(rest_, ',');
  skip_space(rest_);
  return true;
}

JsonMembers::JsonMembers(std::string_view text) : rest_(text) {
  skip_space(rest_);
  state_ = take(rest_, '{') ? State::first : State::malformed;
  skip_space(rest_);
}

bool JsonMembers::next() {
  if (state_ == State::malformed || state_ == State::whole) return false;
  if (take(rest_, '}')) {
    skip_space(rest_);
    state_ = rest_.empty() ? State::whole : State::malformed;
    return false;
  }
  const bool goes_on = state_ == State::first || take(rest_, ',');
  state_ = State::malformed;
  if (!goes_on) return false;
  skip_space(rest_);
  const std::string_view begin = rest_;
  if (!take_string(rest_)) return false;
  name_ = begin.substr(1, begin.size() - rest_.size() - 2);
  skip_space(rest_);
  if (!take(rest_, ':')) return false;
  skip_space(rest_);
  if (!take_value(rest_, 1, value_)) return false;
  skip_space(rest_);
  state_ = State::further;
  return true;
}

std::optional<std::string_view> json_text(const JsonView& value, Arena& arena) {
  if (value.kind != JsonView::Kind::string) return std::nullopt;
  std::string_view text = value.text.substr(1, value.text.size() - 2);
  if (text.find('\\') == std::string_view::npos) return text;
  char* const out = arena.allocate(text.size());  // no escape is shorter than its decoded form
  char* end = out;
  while (!text.empty()) {
    const char c = text.front();
    text.remove_prefix(1);
    if (c != '\\') {
      *end++ = c;
      continue;
    }
    const char escaped = text.front();
    text.remove_prefix(1);
    if (escaped == 'u') {
      const std::optional<uint32_t> code = take_escape(text);
      if (!code) return std::nullopt;
      end = write_utf8(*code, end);
      continue;
    }
    constexpr std::string_view kLetters = "bfnrt", kMeanings = "\b\f\n\r\t";
    const size_t letter = kLetters.find(escaped);
    *end++ = letter == std::string_view::npos ? escaped : kMeanings[letter];
  }
  return std::string_view(out, static_cast<size_t>(end - out));
}

std::optional<uint64_t> json_seconds(const JsonView& value) {
  if (value.kind != JsonView::Kind::number) return std::nullopt;
  double number = 0;
  const auto [end, error] = std::from_chars(value.text.data(), value.text.data() + value.text.size(), number);
  constexpr double kMost = 9'007'199'254'740'992.0;
  if (error != std::errc() || end != value.text.data() + value.text.size() || !(number >= 0) || number > kMost) {
    return std::nullopt;
  }
  return static_cast<uint64_t>(number);
}

void append_json_string(std::string_view text, std::string& out) {
  constexpr char kDigits[] = "0123456789abcdef";
  out += '"';
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      (out += '\\') += c;
    } else if (byte < 0x20 || byte == 0x7f) {
      ((out += "\\u00") += kDigits[byte >> 4]) += kDigits[byte & 15];
    } else {
      out += c;
    }
  }
  out += '"';
}

}  // namespace tidegate::l7::policy
