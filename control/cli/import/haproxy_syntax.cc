// SPDX-License-Identifier: Apache-2.0
#include "control/cli/import/haproxy_syntax.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <utility>

namespace tidegate::cli {
namespace {

// Splits a line into words, with quotes and backslashes, up to a comment.
Result<std::vector<std::string>> words_of(std::string_view text, uint32_t number) {
  std::vector<std::string> words;
  bool open = false;
  char quote = '\0';
  std::string word;
  for (size_t at = 0; at < text.size(); ++at) {
    const char c = text[at];
    const bool blank = c == ' ' || c == '\t' || c == '\r';
    if (c == '\\' && quote != '\'' && at + 1 < text.size()) {
      word += text[++at];
      open = true;
    } else if (quote != '\0') {
      c == quote ? void(quote = '\0') : word.push_back(c);
    } else if (c == '"' || c == '\'') {
      quote = c;
      open = true;
    } else if (c == '#') {
      break;
    } else if (!blank) {
      word += c;
      open = true;
    } else if (open) {
      words.push_back(std::exchange(word, {}));
      open = false;
    }
  }
  if (quote != '\0') return fail(fmt::format("line {}: quotes that are never closed", number));
  if (open) words.push_back(word);
  return words;
}

}  // namespace

const std::string& HaproxyLine::word(size_t i) const {
  static const std::string kNone;
  return i < words.size() ? words[i] : kNone;
}

std::string HaproxyLine::text() const { return fmt::format("{}", fmt::join(words, " ")); }

bool HaproxyLine::has(const std::string& wanted) const {
  return std::find(words.begin(), words.end(), wanted) != words.end();
}

std::string HaproxyLine::after(const std::string& key) const {
  const auto found = std::find(words.begin(), words.end(), key);
  return found == words.end() || found + 1 == words.end() ? std::string() : *(found + 1);
}

Result<std::vector<HaproxySection>> parse_haproxy(std::string_view text) {
  static const std::set<std::string> kHeads = {"global",    "defaults", "frontend", "backend", "listen", "userlist",
                                               "resolvers", "peers",    "program",  "mailers", "cache",  "ring"};
  std::vector<HaproxySection> sections;
  uint32_t number = 0;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    ++number;
    Result<std::vector<std::string>> words = words_of(text.substr(0, end), number);
    if (!words) return words.error();
    text.remove_prefix(std::min(end + 1, text.size()));
    if (words->empty()) continue;
    HaproxyLine line{number, *std::move(words)};
    if (kHeads.count(line.word(0)) != 0) {
      sections.push_back({std::move(line), {}});
    } else if (sections.empty()) {
      return fail(fmt::format("line {}: '{}' is in no section", number, line.word(0)));
    } else {
      sections.back().lines.push_back(std::move(line));
    }
  }
  return sections;
}

}  // namespace tidegate::cli
