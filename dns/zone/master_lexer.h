// SPDX-License-Identifier: Apache-2.0
// MasterLexer: the text of a master file (RFC 1035 §5.1) cut into entries, and those into tokens. It knows comments,
// quotes, escapes and parentheses, and nothing of records.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace tidegate::dns {

// Borrows the text. Escapes are as written; the quotes around a quoted token are left off.
struct MasterToken {
  std::string_view text;
  bool quoted = false;
};

// One record or directive.
struct MasterEntry {
  uint32_t line = 0;          // of its first token, from 1
  bool starts_blank = false;  // the line begins with a blank: the owner is that of the record before
  std::vector<MasterToken> tokens;
};

class MasterLexer {
 public:
  // Borrows the text.
  explicit MasterLexer(std::string_view text) : text_(text) {}

  // The next entry that has a token. False at the end, and after a fault.
  bool next(MasterEntry& entry);
  // What is wrong, or null at the text's end; where is line().
  const char* fault() const { return fault_; }
  uint32_t line() const { return line_; }

 private:
  bool read_token(MasterToken& token);
  bool skip_quoted();
  bool fail(const char* what) {
    fault_ = what;
    return false;
  }

  std::string_view text_;
  size_t at_ = 0;
  size_t line_start_ = 0;
  uint32_t line_ = 1;
  const char* fault_ = nullptr;
};

}  // namespace tidegate::dns
