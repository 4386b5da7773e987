// SPDX-License-Identifier: Apache-2.0
// Names as people type them: finds the nearest known name for a wrong one, and quotes values for a sentence.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace tidegate {

// The number of single-letter changes between two words: insertions, deletions, replacements and swaps of neighbours
// (optimal string alignment; Damerau, "A technique for computer detection and correction of spelling errors", CACM
// 1964). A number above `limit` is returned as limit + 1.
size_t edit_distance(std::string_view a, std::string_view b, size_t limit);

// Returns the candidate that was probably meant: the nearest one within a third of the word's length and at most three
// changes, ignoring case. Returns an empty text if none is near.
std::string_view nearest_name(std::string_view word, const std::vector<std::string_view>& candidates);

// "did you mean 'weight'?", or an empty text.
std::string did_you_mean(std::string_view word, const std::vector<std::string_view>& candidates);

// In single quotes, with control characters escaped, and shortened to fit in a sentence.
std::string in_quotes(std::string_view value);

// "a", "a or b", "a, b or c"
std::string one_of(const std::vector<std::string_view>& words);

}  // namespace tidegate
