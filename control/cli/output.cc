// SPDX-License-Identifier: Apache-2.0
#include "control/cli/output.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <ctime>

#include "core/clock.h"

namespace tidegate::cli {

bool stdout_is_terminal() { return ::isatty(STDOUT_FILENO) != 0 && std::getenv("NO_COLOR") == nullptr; }
bool stderr_is_terminal() { return ::isatty(STDERR_FILENO) != 0 && std::getenv("NO_COLOR") == nullptr; }

std::string printable(std::string_view text, bool lines) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    // U+0080 to U+009F are control characters too, which begin with this byte in UTF-8.
    const bool high = byte == 0xc2 && i + 1 < text.size() && static_cast<unsigned char>(text[i + 1]) < 0xa0;
    const bool control = (byte < 0x20 && !(lines && byte == '\n')) || byte == 0x7f || high;
    out += control ? '?' : text[i];
    if (high) ++i;
  }
  return out;
}

std::string paint(std::string_view given, Tone tone) {
  const std::string text = printable(given, true);
  if (tone == Tone::plain || !stdout_is_terminal()) return text;
  const char* code = tone == Tone::good ? "32" : tone == Tone::bad ? "31" : tone == Tone::faint ? "2" : "1";
  return fmt::format("\033[{}m{}\033[0m", code, text);
}

void Table::add(std::vector<std::string> cells, Tone tone) {
  cells.resize(titles_.size());
  for (std::string& cell : cells) cell = printable(cell);
  rows_.push_back({std::move(cells), tone});
}

void Table::print() const {
  std::vector<size_t> widths;
  for (size_t column = 0; column < titles_.size(); ++column) {
    size_t width = titles_[column].size();
    for (const Row& row : rows_) width = std::max(width, row.cells[column].size());
    widths.push_back(width);
  }
  const auto line = [&](const std::vector<std::string>& cells) {
    std::string text;
    for (size_t column = 0; column < cells.size(); ++column) {
      text += column + 1 == cells.size() ? cells[column] : fmt::format("{:<{}}  ", cells[column], widths[column]);
    }
    text.erase(text.find_last_not_of(' ') + 1);
    return text;
  };
  fmt::print("{}\n", paint(line(titles_), Tone::faint));
  for (const Row& row : rows_) fmt::print("{}\n", paint(line(row.cells), row.tone));
}

std::string age(uint64_t then_ns) {
  const uint64_t now_ns = realtime_ns();
  const uint64_t seconds = now_ns > then_ns ? (now_ns - then_ns) / kNsPerS : 0;
  if (seconds < 120) return fmt::format("{} s", seconds);
  if (seconds < 2 * 3600) return fmt::format("{} min", seconds / 60);
  if (seconds < 48 * 3600) return fmt::format("{} h", seconds / 3600);
  return fmt::format("{} days", seconds / 86'400);
}

std::string local_time(uint64_t at_ns) {
  const auto seconds = static_cast<time_t>(at_ns / kNsPerS);
  std::tm parts{};
  ::localtime_r(&seconds, &parts);
  std::array<char, 32> text{};
  return std::string(text.data(), std::strftime(text.data(), text.size(), "%Y-%m-%d %H:%M:%S", &parts));
}

}  // namespace tidegate::cli
