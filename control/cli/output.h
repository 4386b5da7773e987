// SPDX-License-Identifier: Apache-2.0
// Output for people: aligned tables, ages, and colour on a terminal.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace tidegate::cli {

bool stdout_is_terminal();  // true if it is a terminal and NO_COLOR is not set
bool stderr_is_terminal();

// The text with '?' in place of each control character. Other people write notes and requests, and an escape sequence
// or a line end in them could forge what an operator reads. `lines`: line ends stay.
std::string printable(std::string_view text, bool lines = false);

enum class Tone : uint8_t { plain, good, bad, faint, strong };
std::string paint(std::string_view text, Tone tone);  // for stdout; printable, with its lines

// Columns are as wide as their widest cell. The last column is not padded.
class Table {
 public:
  explicit Table(std::vector<std::string> titles) : titles_(std::move(titles)) {}
  void add(std::vector<std::string> cells, Tone tone = Tone::plain);
  void print() const;

 private:
  struct Row {
    std::vector<std::string> cells;
    Tone tone;
  };
  std::vector<std::string> titles_;
  std::vector<Row> rows_;
};

// "3 s", "12 min", "2 days": the age of a realtime.
std::string age(uint64_t then_ns);
std::string local_time(uint64_t realtime_ns);  // "2026-11-21 02:15:03"

}  // namespace tidegate::cli
