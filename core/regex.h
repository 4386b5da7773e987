// SPDX-License-Identifier: Apache-2.0
// Regular expressions by RE2: for any pattern, the time of a match grows only with the length of the text. Texts are
// bytes: `.` matches any byte except a line end. Other files use RE2 only through this one.
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
  // The text of the whole match (0) and of each group. A group that matched nothing is empty.
  static constexpr size_t kGroups = 10;
  struct Match {
    std::string_view groups[kGroups];
    size_t count = 0;  // number of groups in the pattern, the whole match included; at most kGroups
  };

  // An Error: RE2's reason, the pattern has kGroups groups or more, or it needs more memory than `most_bytes`.
  static Result<Regex> compile(std::string_view pattern, size_t most_bytes);
  // Like compile(), but if a compiled program of this pattern is still in use, returns that program. Takes a lock.
  static Result<Regex> shared(std::string_view pattern, size_t most_bytes);
  // Bounds of all texts that a pattern matches as a whole: each of them is at least `first` and at most `second`,
  // compared by bytes. Nothing if no bounds are known.
  using Bounds = std::pair<std::string, std::string>;
  static std::optional<Bounds> bounds_of(std::string_view pattern, size_t most_bytes);
  // True if the expression matches anywhere in the text. The leftmost match counts. The views are of the text.
  bool search(std::string_view text, Match& out) const;
  // True if the expression matches the whole text.
  bool takes_whole(std::string_view text) const;
  // The number of groups, without the whole match.
  size_t groups() const;

 private:
  struct Program;
  explicit Regex(std::shared_ptr<const Program> program) : program_(std::move(program)) {}
  std::shared_ptr<const Program> program_;
};

}  // namespace tidegate
