// SPDX-License-Identifier: Apache-2.0
#include "conf/zone_includes.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <optional>
#include <vector>

#include "conf/limits.h"

namespace tidegate {
namespace {

constexpr std::string_view kDirective = "$INCLUDE";

bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\r'; }

bool is_directive(std::string_view line) {
  if (line.size() <= kDirective.size() || !is_blank(line[kDirective.size()])) return false;
  return std::equal(kDirective.begin(), kDirective.end(), line.begin(),
                    [](char upper, char c) { return (c >= 'a' && c <= 'z' ? c - 32 : c) == upper; });
}

// Calls fn(line without its end) in order, until it returns false.
template <class Fn>
bool for_each_line(std::string_view text, Fn&& fn) {
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    if (!fn(text.substr(0, end))) return false;
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return true;
}

// Takes the next word of a directive, quoted or not. Returns nothing at the end.
std::optional<std::string_view> take_word(std::string_view& line) {
  while (!line.empty() && is_blank(line.front())) line.remove_prefix(1);
  if (line.empty() || line.front() == ';') return std::nullopt;
  const bool quoted = line.front() == '"';
  if (quoted) line.remove_prefix(1);
  const size_t end = std::min(quoted ? line.find('"') : line.find_first_of(" \t\r;"), line.size());
  const std::string_view word = line.substr(0, end);
  line.remove_prefix(std::min(end + (quoted ? 1 : 0), line.size()));
  return word;
}

// A zone file must not be able to put other files of the host into an answer.
bool stays_inside(const std::string& path) {
  const std::filesystem::path normal = std::filesystem::path(path).lexically_normal();
  return !path.empty() && normal.is_relative() && *normal.begin() != "..";
}

class Includer {
 public:
  Includer(const IncludeReader& read, std::string& error) : read_(read), error_(error) {}

  bool put(const std::string& path, std::string_view text) {
    open_.push_back(path);
    uint32_t number = 0;
    const bool whole = for_each_line(text, [&](std::string_view line) {
      ++number;
      if (is_directive(line)) return include(path, number, line.substr(kDirective.size()));
      out_.append(line).push_back('\n');
      return true;
    });
    open_.pop_back();
    return whole;
  }

  std::string take() { return std::move(out_); }

 private:
  bool include(const std::string& from, uint32_t number, std::string_view arguments) {
    const auto refuse = [&](std::string_view cause) {
      error_ = fmt::format("{}:{}: $INCLUDE: {}", from, number, cause);
      return false;
    };
    const auto word = take_word(arguments);
    const auto origin = take_word(arguments);
    if (!word || word->empty()) return refuse("no file is named");
    if (take_word(arguments)) return refuse("something stands behind the file and its origin");
    const std::string path(*word);
    // The mark has the name in quotes.
    if (path.find_first_of("\"\\") != std::string::npos) return refuse("a quote or a backslash in a file's name");
    if (!stays_inside(path)) return refuse(fmt::format("'{}' is not below the document's folder", path));
    if (std::find(open_.begin(), open_.end(), path) != open_.end())
      return refuse(fmt::format("'{}' includes itself", path));
    if (open_.size() > kMaxZoneIncludeDepth) return refuse("the files include each other too deeply");
    if (++files_ > kMaxZoneIncludes) return refuse(fmt::format("more than {} files are included", kMaxZoneIncludes));
    std::string cause;
    const std::shared_ptr<const std::string> text = read_(path, cause);
    if (text == nullptr) return refuse(fmt::format("'{}': {}", path, cause));
    if (out_.size() + text->size() > kMaxDocumentBytes) return refuse("the zone becomes too large");
    out_ += fmt::format("{} \"{}\" {}\n", kIncludeBegins, path, origin.value_or(""));
    if (!put(path, *text)) return false;
    out_ += fmt::format("{}\n", kIncludeEnds);
    return true;
  }

  const IncludeReader& read_;
  std::string& error_;
  std::string out_;
  std::vector<std::string> open_;  // the files being read, outermost first
  size_t files_ = 0;
};

}  // namespace

bool has_includes(std::string_view text) {
  for (size_t at = text.find('$'); at != std::string_view::npos; at = text.find('$', at + 1)) {
    if ((at == 0 || text[at - 1] == '\n') && is_directive(text.substr(at, kDirective.size() + 1))) return true;
  }
  return false;
}

std::shared_ptr<const std::string> put_includes_in(const std::string& path, std::string_view text,
                                                   const IncludeReader& read, std::string& error) {
  Includer includer(read, error);
  if (!includer.put(path, text)) return nullptr;
  return std::make_shared<const std::string>(includer.take());
}

}  // namespace tidegate
