// SPDX-License-Identifier: Apache-2.0
#include "conf/unclosed.h"

#include <algorithm>
#include <vector>

namespace tidegate {
namespace {

constexpr std::string_view kSpace = " \t\r";

// Knows just enough YAML to distinguish a bracket or quote from text.
class Scanner {
 public:
  explicit Scanner(std::string_view text) : text_(text) {}

  std::optional<size_t> run() {
    while (at_ < text_.size()) {
      const char c = text_[at_];
      if (c == '\n') {
        end_line();
      } else if (c == '#' && (at_ == line_ || is_space(text_[at_ - 1]))) {
        at_ = std::min(text_.find('\n', at_), text_.size());
      } else if ((c == '"' || c == '\'') && begins_token()) {
        const size_t opening = at_;
        if (!skip_quoted(c)) return opening;
        last_ = c;
      } else {
        if (const auto unclosed = step(c)) return unclosed;
        ++at_;
      }
    }
    return open_.empty() ? std::nullopt : std::optional(open_.front());
  }

 private:
  static bool is_space(char c) { return kSpace.find(c) != std::string_view::npos; }

  // True if what precedes it on its line ends where a value or key may begin.
  bool begins_token() const {
    return last_ == '\0' || std::string_view("[{,:-?").find(last_) != std::string_view::npos;
  }

  std::optional<size_t> step(char c) {
    if ((c == '[' || c == '{') && (!open_.empty() || begins_token())) {
      open_.push_back(at_);
    } else if ((c == ']' || c == '}') && !open_.empty()) {
      if ((text_[open_.back()] == '[') != (c == ']')) return open_.back();
      open_.pop_back();
    }
    if (!is_space(c)) last_ = c;
    return std::nullopt;
  }

  // Moves past the closing quote. Returns false if there is none.
  bool skip_quoted(char quote) {
    for (++at_; at_ < text_.size(); ++at_) {
      if (quote == '"' && text_[at_] == '\\') {
        ++at_;
      } else if (text_[at_] == quote) {
        if (quote == '"' || at_ + 1 >= text_.size() || text_[at_ + 1] != quote) return ++at_, true;
        ++at_;  // '' is a quote inside the text
      }
    }
    return false;
  }

  static size_t indentation(std::string_view line) { return std::min(line.find_first_not_of(' '), line.size()); }

  // A block scalar is text: its lines are indented more than the line that begins it.
  void end_line() {
    std::string_view line = text_.substr(line_, at_ - line_);
    while (!line.empty() && is_space(line.back())) line.remove_suffix(1);
    const size_t indent = indentation(line);
    const size_t mark = line.find_last_not_of("+-0123456789");
    const bool begins_block = open_.empty() && mark != std::string_view::npos && mark > 0 &&
                              (line[mark] == '|' || line[mark] == '>') && is_space(line[mark - 1]);
    next_line();
    while (begins_block && at_ < text_.size()) {
      const size_t end = std::min(text_.find('\n', at_), text_.size());
      const std::string_view next = text_.substr(at_, end - at_);
      const bool blank = next.find_first_not_of(kSpace) == std::string_view::npos;
      if (!blank && indentation(next) <= indent) return;
      at_ = end;
      if (at_ < text_.size()) next_line();
    }
  }
  void next_line() {
    line_ = ++at_;
    last_ = '\0';
  }

  std::string_view text_;
  size_t at_ = 0, line_ = 0;  // the current position, and the start of this line
  char last_ = '\0';          // the last character of this line that is not a space
  std::vector<size_t> open_;  // offsets of the open brackets
};

}  // namespace

std::optional<size_t> find_unclosed(std::string_view text) { return Scanner(text).run(); }

}  // namespace tidegate
