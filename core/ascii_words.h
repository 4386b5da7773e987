// SPDX-License-Identifier: Apache-2.0
// The case of ASCII letters, eight bytes at a time. No addition below carries into the next byte.
#pragma once

#include <cstdint>
#include <cstring>

namespace tidegate::ascii {

template <class Word>
Word load(const char* bytes) {
  Word word;
  std::memcpy(&word, bytes, sizeof word);
  return word;
}

constexpr uint64_t in_each_byte(uint8_t byte) { return uint64_t{0x0101'0101'0101'0101} * byte; }

// The top bit of each byte that is a letter from `first` to `last`.
constexpr uint64_t letters_of(uint64_t word, char first, char last) {
  const uint64_t seven_bits = word & in_each_byte(0x7f);
  const uint64_t from_first_on = seven_bits + in_each_byte(static_cast<uint8_t>(0x80 - first));
  const uint64_t beyond_last = seven_bits + in_each_byte(static_cast<uint8_t>(0x7f - last));
  return from_first_on & ~beyond_last & ~word & in_each_byte(0x80);
}

constexpr uint64_t lower(uint64_t word) { return word | letters_of(word, 'A', 'Z') >> 2; }

// True if the eight bytes of both words differ at most in the case of letters.
constexpr bool same_but_for_case(uint64_t a, uint64_t b) {
  const uint64_t differ = a ^ b;
  if ((differ & ~in_each_byte(0x20)) != 0) return false;
  return ((differ << 2) & ~letters_of(a | in_each_byte(0x20), 'a', 'z')) == 0;
}

// Writes `bytes` bytes to `out`, which must not overlap `text`.
inline void copy_lower(const char* text, size_t bytes, char* out) {
  if (bytes >= 8) {
    const auto copy_word = [&](size_t at) {
      const uint64_t word = lower(load<uint64_t>(text + at));
      std::memcpy(out + at, &word, sizeof word);
    };
    for (size_t at = 0; at + 8 < bytes; at += 8) copy_word(at);
    return copy_word(bytes - 8);  // may overlap the one before
  }
  for (size_t i = 0; i < bytes; ++i) {
    out[i] = text[i] >= 'A' && text[i] <= 'Z' ? static_cast<char>(text[i] | 0x20) : text[i];
  }
}

}  // namespace tidegate::ascii
