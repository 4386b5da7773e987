// SPDX-License-Identifier: Apache-2.0
// Names as people type them: the nearest known one for a wrong one, and values quoted for a sentence.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace tidegate {

// Changes of one letter between two words: insertions, deletions, replacements and swaps of neighbours (optimal string
// alignment; Damerau, "A technique for computer detection and correction of spelling errors", CACM 1964).
// Anything above `limit` is reported as limit + 1.
size_t edit_distance(std::string_view a, std::string_view b, size_t limit);

// The candidate that was probably meant: the nearest within a third of the word's length, at most three changes, case
// aside. Empty when none is near.
std::string_view nearest_name(std::string_view word, const std::vector<std::string_view>& candidates);

// "did you mean 'weight'?", or nothing.
std::string did_you_mean(std::string_view word, const std::vector<std::string_view>& candidates);

// In single quotes, control characters escaped, shortened to what fits in a sentence.
std::string in_quotes(std::string_view value);

// "a", "a or b", "a, b or c"
std::string one_of(const std::vector<std::string_view>& words);

}  // namespace tidegate
