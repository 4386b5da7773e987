// SPDX-License-Identifier: Apache-2.0
#include "conf/yaml_plain.h"

#include <yaml-cpp/mark.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>

#include "conf/document_node.h"

namespace tidegate {
namespace {

enum : uint8_t {
  kWord = 1,        // may be in a key
  kBegins = 2,      // may begin a plain scalar
  kGoesOn = 4,      // may be inside a plain scalar
  kAfterColon = 8,  // a ':' before it is text
};

constexpr std::array<uint8_t, 256> kChars = [] {
  std::array<uint8_t, 256> chars{};
  const auto add = [&](std::string_view which, int what) {
    for (const char c : which) chars[static_cast<uint8_t>(c)] |= static_cast<uint8_t>(what);
  };
  add("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_", kWord | kBegins | kGoesOn | kAfterColon);
  add("/.", kBegins | kGoesOn | kAfterColon);
  add("-", kWord | kGoesOn);
  add("$*+%=&@~^;()<>|!", kGoesOn);
  return chars;
}();

bool is(char c, uint8_t what) { return (kChars[static_cast<uint8_t>(c)] & what) != 0; }

constexpr size_t kLongestKey = 128;  // yaml-cpp accepts a key only if its colon is within 1,024 characters

// Plain scalars that yaml-cpp reads as null.
bool is_null_word(std::string_view text) { return text == "~" || text == "null" || text == "Null" || text == "NULL"; }

class PlainReader {
 public:
  PlainReader(std::string_view text, YAML::EventHandler& events) : text_(text), events_(events) {}

  bool read() {
    for (const char strange : {'\r', '\t'}) {
      if (text_.find(strange) != std::string_view::npos) return false;
    }
    if (!next_line() || indent_ != 0 || at_item()) return false;
    events_.OnDocumentStart(YAML::Mark::null_mark());
    if (!block_map(0, 0) || !ended_) return false;
    events_.OnDocumentEnd();
    return true;
  }

 private:
  // Goes to the first character of the next line that has a value. At the end `ended_` is set, and indent_ is below
  // every block's. False: the line is not plain.
  bool next_line() {
    while (line_end_ < text_.size() || line_ == kBeforeFirst) {
      line_start_ = line_ == kBeforeFirst ? 0 : line_end_ + 1;
      if (line_start_ >= text_.size()) break;
      line_ = line_ == kBeforeFirst ? 0 : line_ + 1;
      line_end_ = std::min(text_.find('\n', line_start_), text_.size());
      at_ = line_start_;
      while (at_ < line_end_ && text_[at_] == ' ') ++at_;
      if (at_ == line_end_ || text_[at_] == '#') continue;
      indent_ = static_cast<int>(at_ - line_start_);
      // A directive, or the mark of a document.
      return indent_ != 0 ||
             (text_[at_] != '%' && !text_.substr(at_).starts_with("---") && !text_.substr(at_).starts_with("..."));
    }
    ended_ = true;
    indent_ = -1;
    return true;
  }

  char peek(size_t ahead = 0) const { return at_ + ahead < line_end_ ? text_[at_ + ahead] : '\n'; }
  bool at_item() const { return peek() == '-' && peek(1) == ' '; }
  YAML::Mark mark() const {
    YAML::Mark mark;
    mark.pos = static_cast<int>(at_);
    mark.line = static_cast<int>(line_);
    mark.column = static_cast<int>(at_ - line_start_);
    return mark;
  }
  void skip_blanks() {
    while (peek() == ' ') ++at_;
  }
  // Only a comment, if anything, is left in the line.
  bool at_line_end() {
    const size_t before = at_;
    skip_blanks();
    return at_ == line_end_ || (text_[at_] == '#' && at_ != before);
  }

  // Called at the first key of a map whose keys are in this column.
  bool block_map(int column, int depth) {
    if (depth > static_cast<int>(kMaxDocumentDepth)) return false;
    events_.OnMapStart(mark(), kPlainTag, YAML::NullAnchor, YAML::EmitterStyle::Block);
    do {
      if (!key() || !block_value(column, depth)) return false;
    } while (!ended_ && indent_ == column && !at_item());
    if (indent_ > column) return false;
    events_.OnMapEnd();
    return true;
  }

  // A word and its colon. Moves at_ past both.
  bool key() {
    const size_t start = at_;
    const YAML::Mark place = mark();
    while (is(peek(), kWord)) ++at_;
    if (at_ == start || text_[start] == '-' || peek() != ':') return false;
    const std::string_view word = text_.substr(start, at_ - start);
    if (is_null_word(word) || word.size() > kLongestKey) return false;
    ++at_;
    if (at_ != line_end_ && text_[at_] != ' ') return false;
    give(place, word, false);
    return true;
  }

  // The value of a key in this column, and the next line.
  bool block_value(int column, int depth) {
    if (at_line_end()) {
      if (!next_line() || ended_) return false;
      // A list may begin in the column of its key.
      if (at_item()) return indent_ >= column && block_list(indent_, depth + 1);
      return indent_ > column && block_map(indent_, depth + 1);
    }
    return inline_value(column, depth + 1);
  }

  // A value that ends with its line and does not continue in the next one.
  bool inline_value(int column, int depth) {
    if (!value(depth, false) || !at_line_end() || !next_line()) return false;
    return indent_ <= column;
  }

  // Called at the first dash of a list whose dashes are in this column.
  bool block_list(int column, int depth) {
    if (depth > static_cast<int>(kMaxDocumentDepth)) return false;
    events_.OnSequenceStart(mark(), kPlainTag, YAML::NullAnchor, YAML::EmitterStyle::Block);
    do {
      if (!block_item(column, depth)) return false;
    } while (!ended_ && indent_ == column && at_item());
    if (indent_ > column) return false;
    events_.OnSequenceEnd();
    return true;
  }

  bool block_item(int column, int depth) {
    ++at_;
    skip_blanks();
    if (at_ == line_end_ || text_[at_] == '#' || at_item()) return false;
    const int inner = static_cast<int>(at_ - line_start_);
    if (begins_map()) {
      indent_ = inner;
      return block_map(inner, depth + 1);
    }
    return inline_value(column, depth + 1);
  }

  // A word and a colon that ends it.
  bool begins_map() const {
    size_t ahead = 0;
    while (is(peek(ahead), kWord)) ++ahead;
    return ahead != 0 && peek(ahead) == ':' && (peek(ahead + 1) == ' ' || peek(ahead + 1) == '\n');
  }

  bool value(int depth, bool in_flow) {
    switch (peek()) {
      case '{':
        return flow_map(depth);
      case '[':
        return flow_list(depth);
      case '"':
      case '\'':
        return quoted(peek());
      default:
        return plain(in_flow);
    }
  }

  bool flow_map(int depth) {
    if (depth > static_cast<int>(kMaxDocumentDepth)) return false;
    events_.OnMapStart(mark(), kPlainTag, YAML::NullAnchor, YAML::EmitterStyle::Flow);
    ++at_;
    skip_blanks();
    while (peek() != '}') {
      if (!key()) return false;
      skip_blanks();
      if (!value(depth + 1, true) || !flow_separator('}')) return false;
    }
    ++at_;
    events_.OnMapEnd();
    return true;
  }

  bool flow_list(int depth) {
    if (depth > static_cast<int>(kMaxDocumentDepth)) return false;
    events_.OnSequenceStart(mark(), kPlainTag, YAML::NullAnchor, YAML::EmitterStyle::Flow);
    ++at_;
    skip_blanks();
    while (peek() != ']') {
      if (!value(depth + 1, true) || !flow_separator(']')) return false;
    }
    ++at_;
    events_.OnSequenceEnd();
    return true;
  }

  // A comma with something after it, or the end.
  bool flow_separator(char end) {
    skip_blanks();
    if (peek() == end) return true;
    if (peek() != ',') return false;
    ++at_;
    skip_blanks();
    return peek() != end && peek() != '\n';
  }

  bool quoted(char quote) {
    const YAML::Mark place = mark();
    const size_t start = ++at_;
    while (at_ < line_end_ && text_[at_] != quote && text_[at_] != '\\') ++at_;
    if (at_ == line_end_ || text_[at_] != quote) return false;
    const std::string_view inside = text_.substr(start, at_ - start);
    ++at_;
    const char after = peek();  // not a doubled quote, not a key
    if (after != ' ' && after != '\n' && after != ',' && after != ']' && after != '}') return false;
    if (std::any_of(inside.begin(), inside.end(), [](char c) { return static_cast<uint8_t>(c) < 0x20; })) return false;
    give(place, inside, true);
    return true;
  }

  bool plain(bool in_flow) {
    const YAML::Mark place = mark();
    const size_t start = at_;
    const bool negative = peek() == '-' && is(peek(1), kBegins);
    if (!is(peek(), kBegins) && !negative) return false;
    size_t end = at_;  // after the last character that is not a blank
    for (;; ++at_) {
      const char c = peek();
      if (c == ' ') continue;
      if (is(c, kGoesOn) || (c == ':' && is(peek(1), kAfterColon)) || (c == ':' && peek(1) == ':')) {
        end = at_ + 1;
        continue;
      }
      if (c == '#' && text_[at_ - 1] != ' ') {
        end = at_ + 1;
        continue;
      }
      if (c == '\n' || c == '#' || (in_flow && (c == ',' || c == ']' || c == '}'))) break;
      return false;
    }
    at_ = end;
    const std::string_view scalar = text_.substr(start, end - start);
    if (is_null_word(scalar) || scalar.ends_with(':')) return false;
    give(place, scalar, false);
    return true;
  }

  void give(const YAML::Mark& place, std::string_view scalar, bool quoted) {
    scalar_.assign(scalar);
    events_.OnScalar(place, quoted ? kQuotedTag : kPlainTag, YAML::NullAnchor, scalar_);
  }

  static constexpr size_t kBeforeFirst = SIZE_MAX;
  const std::string kPlainTag = "?", kQuotedTag = "!";
  std::string_view text_;
  YAML::EventHandler& events_;
  size_t line_ = kBeforeFirst;  // from 0
  size_t line_start_ = 0, line_end_ = 0, at_ = 0;
  int indent_ = 0;  // indentation of the line
  bool ended_ = false;
  std::string scalar_;
};

}  // namespace

bool read_plain_yaml(std::string_view text, YAML::EventHandler& events) { return PlainReader(text, events).read(); }

}  // namespace tidegate
