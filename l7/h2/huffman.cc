// SPDX-License-Identifier: Apache-2.0
#include "l7/h2/huffman.h"

#include <array>
#include <cstdint>
#include <cstring>

#include "l7/h2/hpack_code.h"

namespace tidegate::l7::hpack {
namespace {

// One step of the decoder looks at this many bits. They hold two of the short codes, or one of up to this length.
constexpr uint32_t kStepBits = 11, kMostCodeBits = 30;

struct Step {
  uint8_t text[2];
  uint8_t bits;        // of all codes of the step; 0: the code is longer than a step
  uint8_t first_bits;  // of the first code
};

constexpr std::array<Step, 1u << kStepBits> kSteps = [] {
  std::array<Step, 1u << kStepBits> steps{};
  const auto fill = [&steps](uint32_t code, uint32_t bits, const Step& step) {
    const uint32_t first = code << (kStepBits - bits), count = 1u << (kStepBits - bits);
    for (uint32_t i = first; i < first + count; ++i) steps[i] = step;
  };
  constexpr uint32_t kShortest = 5;
  for (uint32_t one = 0; one < 256; ++one) {
    const Code code = kCodes[one];
    if (code.count > kStepBits) continue;
    const auto bits = static_cast<uint8_t>(code.count);
    fill(code.bits, code.count, {{static_cast<uint8_t>(one), 0}, bits, bits});
    if (code.count + kShortest > kStepBits) continue;
    for (uint32_t other = 0; other < 256; ++other) {
      const Code next = kCodes[other];
      const uint32_t both = code.count + next.count;
      if (both > kStepBits) continue;
      fill(code.bits << next.count | next.bits, both,
           {{static_cast<uint8_t>(one), static_cast<uint8_t>(other)}, static_cast<uint8_t>(both), bits});
    }
  }
  return steps;
}();

// Codes of one length follow each other in the order of their bytes.
struct Lengths {
  // By length: the first code, and the code after the last one, both at the top of 32 bits.
  std::array<uint32_t, kMostCodeBits + 1> first{};
  std::array<uint64_t, kMostCodeBits + 1> end{};
  std::array<uint16_t, kMostCodeBits + 1> at{};  // place of its first byte in `bytes`
  std::array<uint8_t, 256> bytes{};
};
constexpr Lengths kLengths = [] {
  Lengths lengths;
  uint16_t placed = 0;
  uint64_t end = 0;
  for (uint32_t length = 5; length <= kMostCodeBits; ++length) {
    lengths.at[length] = placed;
    lengths.first[length] = static_cast<uint32_t>(end);
    for (size_t byte = 0; byte < 256; ++byte) {
      if (kCodes[byte].count != length) continue;
      lengths.bytes[placed++] = static_cast<uint8_t>(byte);
      end += uint64_t{1} << (32 - length);
    }
    lengths.end[length] = end;
  }
  return lengths;
}();

// The length of the code at the top of `bits`, and its byte. 0: it is the end of the string.
uint32_t long_code(uint64_t bits, char& byte) {
  const auto top = static_cast<uint32_t>(bits >> 32);
  for (uint32_t length = kStepBits + 1; length <= kMostCodeBits; ++length) {
    if (top >= kLengths.end[length]) continue;
    byte = static_cast<char>(kLengths.bytes[kLengths.at[length] + ((top - kLengths.first[length]) >> (32 - length))]);
    return length;
  }
  return 0;
}

uint64_t load_big_endian(const char* at) {
  uint64_t word;
  std::memcpy(&word, at, sizeof word);
  return __builtin_bswap64(word);
}

}  // namespace

char* decode_huffman(std::string_view coded, char* out) {
  const char* in = coded.data();
  const char* const end = in + coded.size();
  uint64_t bits = 0;   // the next ones are at the top
  uint32_t count = 0;  // how many of them are there; what follows is zero
  const auto refill = [&] {
    if (end - in >= 8) {
      const uint32_t bytes = (63 - count) / 8;
      // Whole bytes are counted. The bits of the next one that fit are there already, and come again at the same place.
      bits |= load_big_endian(in) >> count;
      in += bytes;
      count += bytes * 8;
      return;
    }
    while (count <= 56 && in < end) {
      bits |= uint64_t{static_cast<uint8_t>(*in++)} << (56 - count);
      count += 8;
    }
  };
  for (;;) {
    refill();
    if (count < kMostCodeBits) break;
    do {
      const Step step = kSteps[bits >> (64 - kStepBits)];
      if (step.bits != 0) {
        std::memcpy(out, step.text, 2);
        out += 1 + (step.bits != step.first_bits);
        bits <<= step.bits;
        count -= step.bits;
        continue;
      }
      const uint32_t length = long_code(bits, *out);
      if (length == 0) return nullptr;
      ++out;
      bits <<= length;
      count -= length;
    } while (count >= kMostCodeBits);
  }
  // Fewer bits than the longest code are left, and no input. Ones follow them, as at the end of the string.
  for (;;) {
    const uint64_t padded = count == 0 ? ~uint64_t{0} : bits | (~uint64_t{0} >> count);
    if (count < 8 && padded == ~uint64_t{0}) return out;
    const Step step = kSteps[padded >> (64 - kStepBits)];
    uint32_t length = step.first_bits;
    if (step.bits != 0) {
      *out = static_cast<char>(step.text[0]);
    } else {
      length = long_code(padded, *out);
    }
    if (length == 0 || length > count) return nullptr;
    ++out;
    bits <<= length;
    count -= length;
  }
}

}  // namespace tidegate::l7::hpack
