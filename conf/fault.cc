// SPDX-License-Identifier: Apache-2.0
#include "conf/fault.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>

#include "conf/text.h"

namespace tidegate {
namespace {

constexpr size_t kTabStop = 8;
constexpr size_t kWindow = 100;  // how many columns of a line are shown
constexpr size_t kLead = 40;     // how many of these are before the fault's place, if the line is too long

struct Style {
  std::string_view place, caret, hint, off;
};
constexpr Style kPlain{};
constexpr Style kColoured{"\x1b[1m", "\x1b[1;31m", "\x1b[36m", "\x1b[0m"};

// The document's lines without their line ends. A byte order mark is not part of a line.
std::vector<std::string_view> lines_of(std::string_view text) {
  text = without_byte_order_mark(text);
  std::vector<std::string_view> lines;
  for (size_t start = 0; start <= text.size();) {
    const size_t end = std::min(text.find('\n', start), text.size());
    std::string_view line = text.substr(start, end - start);
    if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
    lines.push_back(line);
    start = end + 1;
  }
  return lines;
}

// How wide a terminal shows a code point: two cells (Unicode TR11: wide East Asian and emoji blocks), none, or one.
size_t cell_width(uint32_t code_point) {
  const auto within = [&](uint32_t first, uint32_t last) { return code_point >= first && code_point <= last; };
  if (within(0x300, 0x36f) || within(0x200b, 0x200f) || within(0xfe00, 0xfe0f)) return 0;
  const bool wide = within(0x1100, 0x115f) || within(0x2e80, 0xa4cf) || within(0xac00, 0xd7a3) ||
                    within(0xf900, 0xfaff) || within(0xfe30, 0xfe6f) || within(0xff00, 0xff60) ||
                    within(0xffe0, 0xffe6) || within(0x1f300, 0x1faff) || within(0x20000, 0x3fffd);
  return wide ? 2 : 1;
}

// One character of a line as it is shown.
struct Cell {
  size_t byte;       // its offset in the line
  std::string text;  // a tab becomes spaces; a character that cannot be shown becomes '?'
  size_t width;
};

std::vector<Cell> cells_of(std::string_view line) {
  std::vector<Cell> cells;
  size_t column = 0;
  for (size_t i = 0; i < line.size();) {
    const auto lead = static_cast<unsigned char>(line[i]);
    size_t length = lead < 0x80 ? 1 : lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : lead >= 0xc0 ? 2 : 0;
    uint32_t code_point = length == 1 ? lead : length == 0 ? 0 : lead & (0xffU >> (length + 1));
    for (size_t k = 1; k < length; ++k) {
      const unsigned next = i + k < line.size() ? static_cast<unsigned char>(line[i + k]) : 0U;
      if ((next & 0xc0U) != 0x80U) length = 0;
      code_point = code_point << 6 | (next & 0x3fU);
    }
    Cell cell{i, std::string(line.substr(i, length)), length == 0 ? 1 : cell_width(code_point)};
    if (lead == '\t') {
      cell.width = kTabStop - column % kTabStop;
      cell.text.assign(cell.width, ' ');
    } else if (length == 0 || lead < 0x20 || lead == 0x7f) {
      cell.text = "?";
      cell.width = 1;
    }
    column += cell.width;
    i += std::max<size_t>(length, 1);
    cells.push_back(std::move(cell));
  }
  return cells;
}

// The length of the token that begins at `at`: quoted text, or a plain word up to its end.
size_t token_length(std::string_view line, size_t at) {
  if (at >= line.size()) return 1;
  const char first = line[at];
  if (first == '"' || first == '\'') {
    const size_t close = line.find(first, at + 1);
    return (close == std::string_view::npos ? line.size() : close + 1) - at;
  }
  if (std::string_view("{[-").find(first) != std::string_view::npos) return 1;
  size_t end = at;
  while (end < line.size()) {
    const char c = line[end];
    const bool colon_ends = c == ':' && (end + 1 == line.size() || line[end + 1] == ' ' || line[end + 1] == '\t');
    if (c == ' ' || c == '\t' || c == ',' || c == ']' || c == '}' || colon_ends) break;
    ++end;
  }
  return std::max<size_t>(end - at, 1);
}

struct Excerpt {
  std::string line, marks;
};

// The part of the line around its byte `at`, and the marks to print below.
Excerpt excerpt_of(std::string_view line, size_t at, const Style& style) {
  const std::vector<Cell> cells = cells_of(line);
  const size_t end = at + token_length(line, at);
  size_t before = 0, total = 0;
  for (const Cell& cell : cells) {
    if (cell.byte < at) before += cell.width;
    total += cell.width;
  }
  const size_t skipped = total > kWindow && before > kLead ? before - kLead : 0;
  Excerpt excerpt;
  if (skipped > 0) excerpt.line = "…", excerpt.marks = " ";
  size_t column = 0, caret_width = 0;
  bool cut = false;
  for (const Cell& cell : cells) {
    const size_t start = column;
    column += cell.width;
    if (start < skipped) continue;
    if (column > skipped + kWindow) {
      cut = true;
      break;
    }
    excerpt.line += cell.text;
    if (cell.byte < at) excerpt.marks.append(cell.width, ' ');
    if (cell.byte >= at && cell.byte < end) caret_width += cell.width;
  }
  if (cut) excerpt.line += "…";
  const std::string caret = "^" + std::string(std::max<size_t>(caret_width, 1) - 1, '~');
  excerpt.marks += fmt::format("{}{}{}", style.caret, caret, style.off);
  return excerpt;
}

// The byte offset of the character in that column (1-based; 0: unknown).
size_t byte_of(std::string_view line, uint32_t column) {
  size_t at = 0;
  for (uint32_t left = column > 0 ? column - 1 : 0; left > 0 && at < line.size(); --left) {
    for (++at; at < line.size() && (static_cast<unsigned char>(line[at]) & 0xc0U) == 0x80U;) ++at;
  }
  return at;
}

std::string place_text(const Fault& fault) {
  std::string place = fault.file.empty() ? "configuration" : fault.file;
  if (fault.line > 0) return fmt::format("{}:{}:{}:", place, fault.line, fault.column);
  return fault.pointer.empty() ? place + ":" : fmt::format("{}: {}:", place, fault.pointer);
}

void render(const Fault& fault, const std::vector<std::string_view>& lines, const Style& style, std::string& out) {
  out += fmt::format("{}{}{} {}", style.place, place_text(fault), style.off, fault.detail);
  if (!fault.expected.empty()) out += "; expected " + fault.expected;
  out += '\n';
  if (fault.line > 0 && (fault.line_text || fault.line <= lines.size())) {
    const std::string_view line = fault.line_text ? std::string_view(*fault.line_text) : lines[fault.line - 1];
    const Excerpt excerpt = excerpt_of(line, byte_of(line, fault.column), style);
    const std::string number = std::to_string(fault.line);
    out += fmt::format("  {} | {}\n", number, excerpt.line);
    out += fmt::format("  {} | {}\n", std::string(number.size(), ' '), excerpt.marks);
  }
  if (!fault.hint.empty()) out += fmt::format("{}hint:{} {}\n", style.hint, style.off, fault.hint);
}

}  // namespace

bool add_fault(std::vector<Fault>& faults, Fault fault) {
  if (faults.size() > kMaxFaults) return false;
  if (faults.size() < kMaxFaults) {
    faults.push_back(std::move(fault));
    return true;
  }
  // This fault has no place, so it is sorted after all others.
  faults.push_back(
      {"too_many", {}, std::move(fault.file), 0, 0, "there are more faults than these", {}, "mend these first"});
  return false;
}

uint32_t shown_column(std::string_view line, uint32_t byte_column) {
  // In UTF-8 every byte of a character except the first is a continuation byte (RFC 3629 §3).
  const std::string_view before = line.substr(0, byte_column - 1);
  const auto continued = std::count_if(before.begin(), before.end(),
                                       [](char c) { return (static_cast<unsigned char>(c) & 0xc0U) == 0x80U; });
  return byte_column - static_cast<uint32_t>(continued);
}

std::string summary_of(const std::vector<Fault>& faults) {
  const Fault& first = faults.front();
  const bool placed = first.line > 0 || !first.pointer.empty();
  std::string out = placed ? place_text(first) + " " + first.detail : first.detail;
  if (faults.size() > 1) out += fmt::format(" (and {} more fault{})", faults.size() - 1, faults.size() == 2 ? "" : "s");
  return out;
}

std::string render_faults(const std::vector<Fault>& faults, const std::string& document, bool colour) {
  std::vector<const Fault*> ordered;
  ordered.reserve(faults.size());
  for (const Fault& fault : faults) ordered.push_back(&fault);
  // Faults without a place come last.
  const auto key = [](const Fault* fault) {
    return std::tuple(std::string_view(fault->file), fault->line - 1, fault->column);
  };
  std::stable_sort(ordered.begin(), ordered.end(), [&](const Fault* a, const Fault* b) { return key(a) < key(b); });
  const std::vector<std::string_view> lines = lines_of(document);
  std::string out;
  for (const Fault* fault : ordered) render(*fault, lines, colour ? kColoured : kPlain, out);
  return out;
}

}  // namespace tidegate
