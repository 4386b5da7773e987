// SPDX-License-Identifier: Apache-2.0
// The character classes of HTTP/1 in one 256-entry table, and the one scan that is worth vectorising. Only for
// core/http1*.cc.
#pragma once

#include <array>
#include <cstdint>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace tidegate::http1 {

enum CharClass : uint8_t {
  kToken = 1,       // tchar, RFC 9110 §5.6.2
  kTarget = 2,      // visible ASCII except '#': RFC 9112 §3.2 has no fragment, RFC 3986 §2 has only ASCII
  kFieldValue = 4,  // HTAB, SP, VCHAR, obs-text, RFC 9110 §5.5
  // unreserved and sub-delims, RFC 3986 §3.2.2; no escapes, because they would spell one host in two ways
  kHostName = 8,
};

constexpr std::array<uint8_t, 256> make_char_classes() {
  std::array<uint8_t, 256> classes{};
  const auto mark = [&classes](const char* bytes, uint8_t bits) {
    for (; *bytes != '\0'; ++bytes) classes[static_cast<uint8_t>(*bytes)] |= bits;
  };
  constexpr const char* kAlphanumeric = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
  mark(kAlphanumeric, kToken | kHostName);
  mark("!#$%&'*+-.^_`|~", kToken);
  mark("-._~!$&'()*+,;=", kHostName);
  for (size_t c = 0x21; c <= 0x7e; ++c) classes[c] |= kTarget;
  classes['#'] &= static_cast<uint8_t>(~kTarget);
  for (size_t c = 0x20; c <= 0xff; ++c) classes[c] |= kFieldValue;
  classes[0x7f] &= static_cast<uint8_t>(~kFieldValue);
  classes['\t'] |= kFieldValue;
  return classes;
}
inline constexpr std::array<uint8_t, 256> kCharClasses = make_char_classes();

inline bool is_char(char c, CharClass of) { return (kCharClasses[static_cast<uint8_t>(c)] & of) != 0; }

// Returns the first byte at or after `at` that is not in the class, or `end`.
inline const char* skip_class(const char* at, const char* end, CharClass of) {
  while (at != end && is_char(*at, of)) ++at;
  return at;
}

// skip_class(kFieldValue), sixteen bytes per step, because values are most of a head.
inline const char* skip_field_value(const char* at, const char* end) {
#if defined(__SSE2__)
  const __m128i last_control = _mm_set1_epi8(0x1f), tab = _mm_set1_epi8('\t'), del = _mm_set1_epi8(0x7f);
  while (end - at >= 16) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(at));
    const __m128i control = _mm_cmpeq_epi8(_mm_min_epu8(bytes, last_control), bytes);
    const __m128i refused =
        _mm_or_si128(_mm_andnot_si128(_mm_cmpeq_epi8(bytes, tab), control), _mm_cmpeq_epi8(bytes, del));
    const auto mask = static_cast<unsigned>(_mm_movemask_epi8(refused));
    if (mask != 0) return at + __builtin_ctz(mask);
    at += 16;
  }
#endif
  return skip_class(at, end, kFieldValue);
}

}  // namespace tidegate::http1
