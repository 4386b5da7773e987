// SPDX-License-Identifier: Apache-2.0
#include "control/cli/import/nginx_regex.h"

#include <fmt/format.h>

#include <algorithm>
#include <bitset>
#include <map>
#include <optional>

#include "control/cli/import/cases.h"
#include "core/percent.h"

namespace tidegate::cli {
namespace {

using Bytes = std::bitset<256>;

constexpr std::string_view kAnyEscape = "%[0-9A-F][0-9A-F]";

uint8_t byte(char c) { return static_cast<uint8_t>(c); }
bool is_letter(size_t c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
bool is_digit(size_t c) { return c >= '0' && c <= '9'; }

// A path has these never as escapes: RFC 3986 §2.3.
bool is_unreserved(size_t c) { return is_letter(c) || is_digit(c) || c == '-' || c == '.' || c == '_' || c == '~'; }
// A path has these as escapes only.
bool is_always_escaped(size_t c) {
  return c <= ' ' || c == 0x7f || std::string_view("\"#%?").find(static_cast<char>(c)) != std::string_view::npos;
}
bool may_be_escaped(size_t c) { return !is_unreserved(c); }

Bytes set_of(bool (*has)(size_t)) {
  Bytes out;
  for (size_t c = 0; c < out.size(); ++c) out[c] = has(c);
  return out;
}
Bytes set_of(std::string_view text) {
  Bytes out;
  for (const char c : text) out.set(byte(c));
  return out;
}

// \d \w \s \h \v and their opposites.
std::optional<Bytes> class_of_letter(char letter) {
  const char lower = static_cast<char>(letter | 0x20);
  std::optional<Bytes> out;
  if (lower == 'd') out = set_of(is_digit);
  if (lower == 'w') out = set_of(is_letter) | set_of(is_digit) | set_of("_");
  if (lower == 's') out = set_of(" \t\n\v\f\r");
  if (lower == 'h') out = set_of(" \t\xa0");
  if (lower == 'v') out = set_of("\n\v\f\r\x85");
  if (out && letter != lower) out = ~*out;
  return out;
}

std::optional<Bytes> class_of_name(std::string_view name) {
  static const std::map<std::string_view, Bytes> kNamed = {
      {"alpha", set_of(is_letter)},
      {"digit", set_of(is_digit)},
      {"alnum", set_of(is_letter) | set_of(is_digit)},
      {"word", *class_of_letter('w')},
      {"space", *class_of_letter('s')},
      {"blank", set_of(" \t")},
      {"upper", set_of([](size_t c) { return c >= 'A' && c <= 'Z'; })},
      {"lower", set_of([](size_t c) { return c >= 'a' && c <= 'z'; })},
      {"xdigit", set_of("0123456789abcdefABCDEF")},
      {"punct", set_of([](size_t c) { return c > ' ' && c < 0x7f && !is_letter(c) && !is_digit(c); })},
      {"cntrl", set_of([](size_t c) { return c < ' ' || c == 0x7f; })},
      {"print", set_of([](size_t c) { return c >= ' ' && c < 0x7f; })},
      {"graph", set_of([](size_t c) { return c > ' ' && c < 0x7f; })},
      {"ascii", set_of([](size_t c) { return c < 0x80; })},
  };
  const auto found = kNamed.find(name);
  return found == kNamed.end() ? std::nullopt : std::optional(found->second);
}

std::string member_text(size_t c) {
  if (is_letter(c) || is_digit(c)) return std::string(1, static_cast<char>(c));
  if (c > ' ' && c < 0x7f) return fmt::format("{}{}", c == '/' || c == '_' ? "" : "\\", static_cast<char>(c));
  return fmt::format("\\x{:02x}", c);
}

// The members as they stand between brackets.
std::string members_text(const Bytes& set) {
  std::string out;
  for (size_t first = 0; first < set.size(); ++first) {
    if (!set[first]) continue;
    size_t last = first;
    while (last + 1 < set.size() && set[last + 1]) ++last;
    const size_t count = last - first + 1;
    out += member_text(first);
    if (count > 2) out += '-';
    if (count > 1) out += member_text(last);
    first = last;
  }
  return out;
}

// The escapes of those members that a path may have as escapes: "%(?:2[0-3]|3F)".
std::string escapes_text(const Bytes& set) {
  static constexpr std::string_view kHex = "0123456789ABCDEF";
  std::map<std::string, std::string> by_low;  // high digits, by the low digits that belong to them
  for (size_t high = 0; high < 16; ++high) {
    std::string low;
    for (size_t digit = 0; digit < 16; ++digit) {
      const size_t c = 16 * high + digit;
      if (set[c] && may_be_escaped(c)) low += kHex[digit];
    }
    // What is never an escape does not matter: rows that are alike can stand together.
    if (low.empty()) continue;
    // What is never an escape does not matter: a row that is whole but for that is written as a whole one.
    const auto fits = [&](size_t digit) { return set[16 * high + digit] || !may_be_escaped(16 * high + digit); };
    bool whole = true;
    for (size_t digit = 0; digit < 16; ++digit) whole = whole && fits(digit);
    const std::string digits = whole ? std::string(kHex) : low;
    by_low[digits] += kHex[high];
  }
  const auto digits_text = [](const std::string& digits) {
    Bytes members = set_of(digits);
    return digits.size() == 1 ? digits : "[" + members_text(members) + "]";
  };
  std::string out;
  for (const auto& [low, high] : by_low) out += (out.empty() ? "" : "|") + digits_text(high) + digits_text(low);
  if (out.empty()) return out;
  return by_low.size() == 1 ? "%" + out : "%(?:" + out + ")";
}

// One character of the set, as a path has it. `written`: how the pattern has it; it stays so where escapes play no
// part.
std::string unit_text(const Bytes& set, std::string_view written) {
  const bool one = set.count() == 1;
  if ((set & set_of(may_be_escaped)).none() || (one && set['/'])) {
    if (one) return member_text(static_cast<size_t>(set._Find_first()));
    const bool readable = written.find("\\_") == std::string_view::npos;  // RE2 has no such escape
    return readable ? std::string(written) : "[" + members_text(set) + "]";
  }
  const Bytes plain = set & ~set_of(is_always_escaped);
  const Bytes others = ~set & ~set_of(is_always_escaped);
  std::string out;
  if (plain.count() > 128) {
    out = "[^" + members_text(others | set_of("%")) + "]";
  } else if (plain.any()) {
    out = one ? member_text(static_cast<size_t>(plain._Find_first())) : "[" + members_text(plain) + "]";
  }
  return fmt::format("(?:{}{}{})", out, out.empty() ? "" : "|", escapes_text(set));
}

class Translation {
 public:
  Translation(std::string_view pattern, bool ignore_case) : text_(pattern), ignore_case_(ignore_case) {}

  Result<std::string> run() {
    if (text_.starts_with("(?i)")) {
      ignore_case_ = true;
      at_ = 4;
    }
    while (at_ < text_.size()) {
      if (const Result<void> taken = next(); !taken) return taken.error();
    }
    return whole_regex(out_, ignore_case_);
  }

 private:
  Result<void> next() {
    const size_t begin = at_;
    const char c = text_[at_++];
    if (c == '[') return bracket(begin);
    if (c == '(') return group();
    if (c == '\\') return escape(begin);
    if (c == '.') return dot();
    if (c == '{' && is_repetition(begin)) return keep(begin);
    if (c == ')') --depth_;
    if (std::string_view("^$|)*+?").find(c) != std::string_view::npos) return keep(begin);
    return literal(byte(c), begin);
  }

  Result<void> keep(size_t begin) {
    out_ += text_.substr(begin, at_ - begin);
    return {};
  }
  Result<void> unit(Bytes set, size_t begin) {
    out_ += unit_text(set, text_.substr(begin, at_ - begin));
    return {};
  }
  Result<void> literal(uint8_t c, size_t begin) {
    Bytes set;
    set.set(c);
    return unit(set, begin);
  }

  // "{3}", "{3,}" and "{3,5}"; any other brace is a brace.
  bool is_repetition(size_t begin) {
    const size_t end = text_.find('}', begin);
    if (end == std::string_view::npos || end == begin + 1 || !is_digit(byte(text_[begin + 1]))) return false;
    const std::string_view inside = text_.substr(begin + 1, end - begin - 1);
    if (inside.find_first_not_of("0123456789,") != std::string_view::npos || inside.find(',') != inside.rfind(','))
      return false;
    at_ = end + 1;
    return true;
  }

  // As often as it likes, a character is any number of bytes; that reads best as it is.
  Result<void> dot() {
    const bool any_number = at_ < text_.size() && (text_[at_] == '*' || text_[at_] == '+');
    out_ += any_number ? "." : fmt::format("(?:[^%]|{})", kAnyEscape);
    return {};
  }

  Result<void> group() {
    const std::string_view rest = text_.substr(at_);
    if (rest.starts_with("?!")) return not_followed();
    out_ += '(';
    ++depth_;
    if (!rest.starts_with('?')) return {};
    if (rest.starts_with("?:")) {
      out_ += "?:";
      at_ += 2;
      return {};
    }
    const size_t name = rest.starts_with("?P<") ? 3 : rest.starts_with("?<") ? 2 : 0;
    const size_t end = rest.find('>');
    const bool is_name =
        name != 0 && end != std::string_view::npos && end > name &&
        std::all_of(rest.begin() + static_cast<std::ptrdiff_t>(name), rest.begin() + static_cast<std::ptrdiff_t>(end),
                    [](char c) { return is_letter(byte(c)) || is_digit(byte(c)) || c == '_'; });
    if (!is_name) return fail("RE2 does not look ahead or behind, and flags stand at the beginning");
    out_ += fmt::format("?P<{}>", rest.substr(name, end - name));
    at_ += end + 1;
    return {};
  }

  // "(?!words)" at the end, where anything else may follow: the text ends, or differs from the words somewhere.
  Result<void> not_followed() {
    const Result<void> no = fail("RE2 does not look ahead, except for plain words at the end of the expression");
    at_ += 2;
    const size_t close = text_.find(')', at_);
    if (close == std::string_view::npos || depth_ != 0) return no;
    if (const std::string_view after = text_.substr(close + 1); !after.empty() && after != ".*" && after != ".*$")
      return no;
    std::string words;
    for (; at_ < close; ++at_) {
      if (text_[at_] == '\\' && std::string_view("./-_~").find(text_[at_ + 1]) != std::string_view::npos) {
        ++at_;
      } else if (text_[at_] == '.') {
        return no;
      }
      if (!is_unreserved(byte(text_[at_])) && text_[at_] != '/') return no;
      words += text_[at_];
    }
    if (words.empty()) return no;
    std::string out;
    for (size_t i = words.size(); i-- > 0;) {
      const std::string here = member_text(byte(words[i]));
      out = fmt::format("(?:$|[^{}]{}{}{})", here, out.empty() ? "" : "|", out.empty() ? "" : here, out);
    }
    out_ += out;
    at_ = text_.size();
    return {};
  }

  // What a backslash and what follows it stand for: one byte, or a class. at_ is behind the backslash.
  Result<Bytes> meaning() {
    if (at_ == text_.size()) return fail("it ends with a backslash");
    const char c = text_[at_++];
    if (const std::optional<Bytes> known = class_of_letter(c)) return *known;
    static constexpr std::string_view kNames = "tnrfea", kValues = "\t\n\r\f\x1b\a";
    if (const size_t i = kNames.find(c); i != std::string_view::npos) return set_of(kValues.substr(i, 1));
    if (c == 'x' && at_ + 2 <= text_.size()) {
      const int high = hex_digit(text_[at_]), low = hex_digit(text_[at_ + 1]);
      if (high >= 0 && low >= 0) {
        at_ += 2;
        Bytes out;
        out.set(static_cast<size_t>(16 * high + low));
        return out;
      }
    }
    if (is_letter(byte(c)) || is_digit(byte(c))) return fail(fmt::format("a route cannot say \\{} of a path", c));
    return set_of(std::string_view(&c, 1));
  }

  Result<void> escape(size_t begin) {
    const Result<Bytes> set = meaning();
    if (!set) return set.error();
    return unit(*set, begin);
  }

  // Both cases of its letters, if case does not count.
  Bytes folded(Bytes set) const {
    for (size_t c = 'a'; ignore_case_ && c <= 'z'; ++c) {
      const bool has = set[c] || set[c - 0x20];
      set[c] = set[c - 0x20] = has;
    }
    return set;
  }

  Result<void> bracket(size_t begin) {
    const bool negated = at_ < text_.size() && text_[at_] == '^';
    if (negated) ++at_;
    Bytes set;
    std::optional<size_t> single;  // what a range may begin with
    for (bool first = true;; first = false) {
      if (at_ >= text_.size()) return fail("a class has no end");
      if (text_[at_] == ']' && !first) break;
      if (single && text_[at_] == '-' && at_ + 1 < text_.size() && text_[at_ + 1] != ']') {
        ++at_;
        const Result<Bytes> end = member();
        if (!end) return end.error();
        if (end->count() != 1 || end->_Find_first() < *single) return fail("a range of a class has no such end");
        for (size_t c = *single; c <= end->_Find_first(); ++c) set.set(c);
        single.reset();
        continue;
      }
      const Result<Bytes> one = member();
      if (!one) return one.error();
      set |= *one;
      single = one->count() == 1 ? std::optional(static_cast<size_t>(one->_Find_first())) : std::nullopt;
    }
    ++at_;
    set = folded(set);
    return unit(negated ? ~set : set, begin);
  }

  Result<Bytes> member() {
    const std::string_view rest = text_.substr(at_);
    if (rest.starts_with("[:")) {
      const size_t end = rest.find(":]");
      const bool negated = rest.starts_with("[:^");
      const size_t from = negated ? 3 : 2;
      const std::optional<Bytes> named =
          end == std::string_view::npos || end < from ? std::nullopt : class_of_name(rest.substr(from, end - from));
      if (!named) return fail("a class has no such name");
      at_ += end + 2;
      return negated ? ~*named : *named;
    }
    if (text_[at_++] == '\\') return meaning();
    return set_of(text_.substr(at_ - 1, 1));
  }

  std::string_view text_;
  bool ignore_case_;
  size_t at_ = 0;
  int depth_ = 0;  // groups that are open
  std::string out_;
};

}  // namespace

Result<std::string> nginx_path_regex(std::string_view pattern, bool ignore_case) {
  return Translation(pattern, ignore_case).run();
}

}  // namespace tidegate::cli
