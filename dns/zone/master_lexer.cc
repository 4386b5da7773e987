// SPDX-License-Identifier: Apache-2.0
#include "dns/zone/master_lexer.h"

#include <algorithm>

namespace tidegate::dns {

bool equals_ignore_case(std::string_view text, std::string_view upper) {
  return std::equal(text.begin(), text.end(), upper.begin(), upper.end(),
                    [](char a, char b) { return (a >= 'a' && a <= 'z' ? a - 32 : a) == b; });
}
namespace {

bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\r'; }
bool ends_token(char c) { return is_blank(c) || c == '\n' || c == ';' || c == '(' || c == ')'; }

}  // namespace

// Moves past the quoted text that begins at at_.
bool MasterLexer::skip_quoted() {
  const size_t start = at_;
  for (++at_; at_ < text_.size(); ++at_) {
    if (text_[at_] == '"') {
      ++at_;
      return true;
    }
    if (text_[at_] == '\n') break;
    if (text_[at_] == '\\' && at_ + 1 < text_.size() && text_[at_ + 1] != '\n') ++at_;
  }
  return fail(start, "a quoted text does not end on its line");
}

bool MasterLexer::read_token(MasterToken& token) {
  const size_t start = at_;
  if (text_[at_] == '"') {
    if (!skip_quoted()) return false;
    token = {text_.substr(start + 1, at_ - start - 2), true};
    return true;
  }
  while (at_ < text_.size() && !ends_token(text_[at_])) {
    if (text_[at_] == '"') {  // within: key="a value" (RFC 9460 §2.1)
      if (!skip_quoted()) return false;
      continue;
    }
    if (text_[at_] == '\\') {
      if (at_ + 1 == text_.size() || text_[at_ + 1] == '\n') return fail(at_, "a backslash at a line's end");
      ++at_;
    }
    ++at_;
  }
  token = {text_.substr(start, at_ - start), false};
  return true;
}

bool MasterLexer::next(MasterEntry& entry) {
  entry.tokens.clear();
  grouped_ = false;  // inside parentheses, a line end is a blank
  size_t group_at = 0;
  while (at_ < text_.size()) {
    const char c = text_[at_];
    if (c == '\n') {
      if (!grouped_ && !entry.tokens.empty()) return true;  // the next call counts it
      ++line_;
      line_start_ = ++at_;
    } else if (is_blank(c)) {
      ++at_;
    } else if (c == ';') {
      at_ = std::min(text_.find('\n', at_), text_.size());
    } else if (c == '(') {
      if (grouped_) return fail(at_, "a parenthesis within parentheses");
      grouped_ = true;
      group_at = at_++;
    } else if (c == ')') {
      if (!grouped_) return fail(at_, "a closing parenthesis without one that opens");
      grouped_ = false;
      ++at_;
    } else {
      if (entry.tokens.empty()) {
        entry.line = line_;
        entry.at = at_;
        entry.starts_blank = is_blank(text_[line_start_]);
      }
      MasterToken token;
      if (!read_token(token)) return false;
      entry.tokens.push_back(token);
    }
  }
  if (grouped_) return fail(group_at, "a parenthesis that is never closed");
  return !entry.tokens.empty();
}

bool MasterLexer::recover() {
  if (fault_ == nullptr || grouped_) return false;
  fault_ = nullptr;
  at_ = std::min(text_.find('\n', at_), text_.size());
  return true;
}

}  // namespace tidegate::dns
