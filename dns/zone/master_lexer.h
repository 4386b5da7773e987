// SPDX-License-Identifier: Apache-2.0
// MasterLexer: cuts the text of a master file (RFC 1035 §5.1) into entries, and entries into tokens. It knows comments,
// quotes, escapes and parentheses, but nothing about records.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace tidegate::dns {

// True if `text` equals the upper-case word `upper`, without case.
bool equals_ignore_case(std::string_view text, std::string_view upper);

// Borrows the text. Escapes stay as written. The quotes around a quoted token are removed.
struct MasterToken {
  std::string_view text;
  bool quoted = false;
};

// One record or directive.
struct MasterEntry {
  uint32_t line = 0;          // line of its first token, from 1
  size_t at = 0;              // offset of its first token in the text
  bool starts_blank = false;  // the line begins with a blank: the owner is the one of the previous record
  std::vector<MasterToken> tokens;
};

class MasterLexer {
 public:
  // Borrows the text.
  explicit MasterLexer(std::string_view text) : text_(text) {}

  // The next entry that has a token. Returns false at the end, and at a fault.
  bool next(MasterEntry& entry);
  // The fault, as a sentence. Null at the text's end.
  const char* fault() const { return fault_; }
  size_t fault_at() const { return fault_at_; }  // offset in the text
  // After a fault: continues with the next line. Returns false if the fault leaves it unclear where an entry begins.
  bool recover();
  // The position after the last entry and its comment, at the line's end.
  size_t position() const { return at_; }
  // The offset of a token in the text, with its quote.
  size_t at(const MasterToken& token) const {
    return static_cast<size_t>(token.text.data() - text_.data()) - (token.quoted ? 1 : 0);
  }

 private:
  bool read_token(MasterToken& token);
  bool skip_quoted();
  bool fail(size_t at, const char* what) {
    fault_ = what;
    fault_at_ = at;
    return false;
  }

  std::string_view text_;
  size_t at_ = 0;
  size_t line_start_ = 0;
  uint32_t line_ = 1;
  bool grouped_ = false;  // inside parentheses
  const char* fault_ = nullptr;
  size_t fault_at_ = 0;
};

}  // namespace tidegate::dns
