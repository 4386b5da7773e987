// SPDX-License-Identifier: Apache-2.0
#include "conf/names.h"

#include <fmt/format.h>

#include <algorithm>

namespace tidegate {
namespace {

constexpr size_t kMaxWord = 255;  // longer words are not typing errors
constexpr size_t kMaxQuoted = 64;
constexpr size_t kMaxChanges = 3;

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

}  // namespace

size_t edit_distance(std::string_view a, std::string_view b, size_t limit) {
  const size_t gap = a.size() > b.size() ? a.size() - b.size() : b.size() - a.size();
  if (gap > limit) return limit + 1;
  // Three rows of the table. A swap needs the row before the last.
  std::vector<size_t> before(b.size() + 1), last(b.size() + 1), row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) last[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    row[0] = i;
    size_t best = row[0];
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t replaced = last[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      row[j] = std::min({replaced, last[j] + 1, row[j - 1] + 1});
      const bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
      if (swapped) row[j] = std::min(row[j], before[j - 2] + 1);
      best = std::min(best, row[j]);
    }
    if (best > limit) return limit + 1;
    std::swap(before, last);
    std::swap(last, row);
  }
  return std::min(last[b.size()], limit + 1);
}

std::string_view nearest_name(std::string_view word, const std::vector<std::string_view>& candidates) {
  if (word.empty() || word.size() > kMaxWord) return {};
  std::string folded(word);
  std::transform(folded.begin(), folded.end(), folded.begin(), lower);
  size_t best = kMaxChanges + 1;
  std::string_view nearest;
  std::string other;
  for (const std::string_view candidate : candidates) {
    if (candidate == word || candidate.size() > kMaxWord) continue;
    other.assign(candidate);
    std::transform(other.begin(), other.end(), other.begin(), lower);
    const size_t limit =
        std::min(std::clamp<size_t>(std::max(word.size(), candidate.size()) / 3, 1, kMaxChanges), best - 1);
    const size_t distance = edit_distance(folded, other, limit);
    if (distance > limit) continue;
    nearest = candidate;
    best = distance;
    if (distance == 0) return nearest;
  }
  return nearest;
}

std::string did_you_mean(std::string_view word, const std::vector<std::string_view>& candidates) {
  const std::string_view nearest = nearest_name(word, candidates);
  return nearest.empty() ? std::string() : fmt::format("did you mean '{}'?", nearest);
}

std::string in_quotes(std::string_view value) {
  std::string text = "'";
  for (size_t i = 0; i < value.size(); ++i) {
    const char c = value[i];
    const bool starts_character = (static_cast<unsigned char>(c) & 0xc0) != 0x80;
    if (i >= kMaxQuoted && starts_character) {
      text += "…";
      break;
    }
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      text += c == '\n' ? std::string("\\n") : fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    } else {
      text += c;
    }
  }
  return text + "'";
}

std::string one_of(const std::vector<std::string_view>& words) {
  std::string text;
  for (size_t i = 0; i < words.size(); ++i) {
    if (i > 0) text += i + 1 == words.size() ? " or " : ", ";
    text += words[i];
  }
  return text;
}

}  // namespace tidegate
