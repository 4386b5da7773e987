// SPDX-License-Identifier: Apache-2.0
// Sources: the files that one document was made from. The lines of all files have consecutive numbers. So a place in
// the tree is one number. Faults get the place in their own file back.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "conf/fault.h"

namespace tidegate {

class Sources {
 public:
  // Adds a file's text. Returns how many lines stand before its first one. `text` has no byte order mark.
  uint32_t add(std::string name, std::string_view text);
  // All texts, each from the line that add() said.
  const std::string& text() const { return text_; }
  size_t files() const { return files_.size(); }
  const std::string& name() const { return files_.front().name; }
  std::string_view line(uint32_t number) const;  // numbered through all files; empty if there is no such line
  // A fault in the first file gets the file and line to which its line number belongs. So do line numbers in its hint.
  // All faults in these files get the text of the line. Nothing changes if there is only one file.
  void place(std::vector<Fault>& faults) const;

 private:
  struct File {
    std::string name;
    uint32_t lines_before = 0;
  };
  const File& file_of(uint32_t line) const;
  std::string with_places(std::string hint) const;

  std::vector<File> files_;
  std::string text_;
  std::vector<size_t> line_starts_;  // in text_
};

}  // namespace tidegate
