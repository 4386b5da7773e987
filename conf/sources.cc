// SPDX-License-Identifier: Apache-2.0
#include "conf/sources.h"

#include <fmt/format.h>

#include <algorithm>

#include "conf/text.h"
#include "core/assert.h"

namespace tidegate {

uint32_t Sources::add(std::string name, std::string_view text) {
  const auto before = static_cast<uint32_t>(line_starts_.size());
  files_.push_back({std::move(name), before});
  text_.reserve(text_.size() + text.size() + 1);
  line_starts_.push_back(text_.size());
  for (size_t at = text.find('\n'); at != std::string_view::npos; at = text.find('\n', at + 1))
    line_starts_.push_back(text_.size() + at + 1);
  text_.append(text);
  text_.push_back('\n');
  return before;
}

std::string_view Sources::line(uint32_t number) const {
  if (number == 0 || number > line_starts_.size()) return {};
  const size_t begins = line_starts_[number - 1];
  return std::string_view(text_).substr(begins, text_.find('\n', begins) - begins);
}

const Sources::File& Sources::file_of(uint32_t line) const {
  TIDEGATE_ASSERT(!files_.empty(), "a document has a file");
  const auto after = std::upper_bound(files_.begin() + 1, files_.end(), line,
                                      [](uint32_t wanted, const File& file) { return wanted <= file.lines_before; });
  return *(after - 1);
}

// "the first is at line 12, column 3" says the file too.
std::string Sources::with_places(std::string hint) const {
  constexpr std::string_view kLine = "line ";
  const size_t at = hint.find(kLine);
  if (at == std::string::npos) return hint;
  const size_t begin = at + kLine.size();
  const size_t end = std::min(hint.find_first_not_of("0123456789", begin), hint.size());
  const std::optional<uint64_t> line = parse_decimal(std::string_view(hint).substr(begin, end - begin));
  if (!line || *line == 0 || *line > line_starts_.size()) return hint;
  const File& file = file_of(static_cast<uint32_t>(*line));
  return hint.substr(0, begin) + fmt::format("{} of {}", *line - file.lines_before, file.name) + hint.substr(end);
}

void Sources::place(std::vector<Fault>& faults) const {
  if (files_.size() < 2) return;
  for (Fault& fault : faults) {
    if (fault.line == 0 || fault.line_text) continue;
    auto file = std::find_if(files_.begin(), files_.end(), [&](const File& each) { return each.name == fault.file; });
    if (file == files_.end()) continue;
    uint32_t number = file->lines_before + fault.line;
    if (file == files_.begin()) {
      const File& own = file_of(number);
      fault.file = own.name;
      fault.line -= own.lines_before;
      fault.hint = with_places(std::move(fault.hint));
    }
    fault.line_text = std::string(line(number).substr(0, kMaxShownLineBytes));
  }
}

}  // namespace tidegate
