// SPDX-License-Identifier: Apache-2.0
#include "dns/zone/master_lexer.h"

#include <algorithm>

namespace tidegate::dns {
namespace {

bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\r'; }
bool ends_token(char c) { return is_blank(c) || c == '\n' || c == ';' || c == '(' || c == ')'; }

}  // namespace

// Past the quote that closes the one at at_.
bool MasterLexer::skip_quoted() {
  for (++at_; at_ < text_.size(); ++at_) {
    if (text_[at_] == '"') {
      ++at_;
      return true;
    }
    if (text_[at_] == '\n') break;
    if (text_[at_] == '\\' && at_ + 1 < text_.size() && text_[at_ + 1] != '\n') ++at_;
  }
  return fail("a quoted text does not end on its line");
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
      if (at_ + 1 == text_.size() || text_[at_ + 1] == '\n') return fail("a backslash at a line's end");
      ++at_;
    }
    ++at_;
  }
  token = {text_.substr(start, at_ - start), false};
  return true;
}

bool MasterLexer::next(MasterEntry& entry) {
  entry.tokens.clear();
  bool grouped = false;  // within parentheses a line's end is a blank
  uint32_t group_line = 0;
  while (at_ < text_.size()) {
    const char c = text_[at_];
    if (c == '\n') {
      if (!grouped && !entry.tokens.empty()) return true;  // counted by the next call
      ++line_;
      line_start_ = ++at_;
    } else if (is_blank(c)) {
      ++at_;
    } else if (c == ';') {
      at_ = std::min(text_.find('\n', at_), text_.size());
    } else if (c == '(') {
      if (grouped) return fail("a parenthesis within parentheses");
      grouped = true;
      group_line = line_;
      ++at_;
    } else if (c == ')') {
      if (!grouped) return fail("a closing parenthesis without one that opens");
      grouped = false;
      ++at_;
    } else {
      if (entry.tokens.empty()) {
        entry.line = line_;
        entry.starts_blank = is_blank(text_[line_start_]);
      }
      MasterToken token;
      if (!read_token(token)) return false;
      entry.tokens.push_back(token);
    }
  }
  if (grouped) {
    line_ = group_line;
    return fail("a parenthesis that is never closed");
  }
  return !entry.tokens.empty();
}

}  // namespace tidegate::dns
