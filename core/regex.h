// SPDX-License-Identifier: Apache-2.0
// Regular expressions by RE2: the time of a match grows with the text alone, whatever the pattern is. Texts are bytes:
// `.` takes any byte but a line end. RE2 is reached through this file.
//
// Threads: any; a Regex is immutable. RE2 may allocate while it matches, within the bound of its pattern.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "core/result.h"

namespace tidegate {

class Regex {
 public:
  // What the whole match (0) and each group took; a group that took nothing is empty.
  static constexpr size_t kGroups = 10;
  struct Match {
    std::string_view groups[kGroups];
    size_t count = 0;  // of groups that the pattern has, the whole match included; at most kGroups
  };

  // An Error: RE2's reason, the pattern has kGroups groups or more, or it needs more memory than `most_bytes`.
  static Result<Regex> compile(std::string_view pattern, size_t most_bytes);
  // The same, but what has been compiled already and is still used by others is used again. Takes a lock.
  static Result<Regex> shared(std::string_view pattern, size_t most_bytes);
  // Bounds of the texts that a pattern takes whole: each of them is at least `first`, and at most `second`, compared by
  // bytes. Nothing: none can be told.
  using Bounds = std::pair<std::string, std::string>;
  static std::optional<Bounds> bounds_of(std::string_view pattern, size_t most_bytes);
  // Whether it matches anywhere in the text; the leftmost match is taken. The views are of the text.
  bool search(std::string_view text, Match& out) const;
  // Whether it takes the whole text.
  bool takes_whole(std::string_view text) const;
  // How many groups it has, without the whole match.
  size_t groups() const;

 private:
  struct Program;
  explicit Regex(std::shared_ptr<const Program> program) : program_(std::move(program)) {}
  std::shared_ptr<const Program> program_;
};

}  // namespace tidegate
