// SPDX-License-Identifier: Apache-2.0
#include "core/hash.h"

#include <gtest/gtest.h>

#include <array>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "core/hash128.h"

namespace tidegate::hash_test {

// SipHash-c-d straight from the paper (§2.1-2.4), byte by byte. It shares no code with the code under test.
// `wide`: 128 bits, as its authors' own code adds them.
std::array<uint64_t, 2> naive_words(uint64_t k0, uint64_t k1, const std::string& message, int c, int d, bool wide) {
  uint64_t v[4] = {k0 ^ 0x736f6d6570736575, k1 ^ 0x646f72616e646f6d, k0 ^ 0x6c7967656e657261, k1 ^ 0x7465646279746573};
  const auto rotate = [](uint64_t& x, int by) { x = (x << by) | (x >> (64 - by)); };
  const auto rounds = [&](int n) {
    for (int i = 0; i < n; ++i) {
      v[0] += v[1], v[2] += v[3];
      rotate(v[1], 13), rotate(v[3], 16);
      v[1] ^= v[0], v[3] ^= v[2];
      rotate(v[0], 32);
      v[2] += v[1], v[0] += v[3];
      rotate(v[1], 17), rotate(v[3], 21);
      v[1] ^= v[2], v[3] ^= v[0];
      rotate(v[2], 32);
    }
  };
  if (wide) v[1] ^= 0xee;
  std::string padded = message;
  while (padded.size() % 8 != 7) padded.push_back('\0');
  padded.push_back(static_cast<char>(message.size() & 0xff));
  for (size_t at = 0; at < padded.size(); at += 8) {
    uint64_t word = 0;
    for (size_t i = 0; i < 8; ++i) word |= static_cast<uint64_t>(static_cast<uint8_t>(padded[at + i])) << (8 * i);
    v[3] ^= word;
    rounds(c);
    v[0] ^= word;
  }
  v[2] ^= wide ? 0xee : 0xff;
  rounds(d);
  const uint64_t low = v[0] ^ v[1] ^ v[2] ^ v[3];
  if (!wide) return {low, 0};
  v[1] ^= 0xdd;
  rounds(d);
  return {low, v[0] ^ v[1] ^ v[2] ^ v[3]};
}

uint64_t naive_siphash(uint64_t k0, uint64_t k1, const std::string& message, int c, int d) {
  return naive_words(k0, k1, message, c, d, false)[0];
}

// The key 00 01 .. 0f of the paper's Appendix A.
constexpr HashKey kPaperKey{0x0706050403020100, 0x0f0e0d0c0b0a0908};

TEST(SipHash, TheReferenceOfTheseTestsGivesThePapersAnswerForSipHash24) {
  std::string message;
  for (char c = 0; c < 15; ++c) message.push_back(c);
  EXPECT_EQ(naive_siphash(kPaperKey.k0, kPaperKey.k1, message, 2, 4), 0xa129ca6149be45e5);
}

TEST(SipHash, TheReferenceGivesTheAuthorsAnswerForTheLongFormOfSipHash24) {  // vectors_sip128[0] of their code
  const std::array<uint64_t, 2> expected{0xe6a825ba047f81a3, 0x930255c71472f66d};
  EXPECT_EQ(naive_words(kPaperKey.k0, kPaperKey.k1, "", 2, 4, true), expected);
}

TEST(SipHash, TheLongFormEqualsTheNaiveReferenceAtEveryLength) {
  std::mt19937_64 random(2);
  std::string message;
  for (size_t length = 0; length < 300; ++length) {
    const HashKey key{random(), random()};
    const Hash128 hash = siphash13_128(key, message);
    const std::array<uint64_t, 2> words{hash.low, hash.high};
    EXPECT_EQ(words, naive_words(key.k0, key.k1, message, 1, 3, true)) << length;
    message.push_back(static_cast<char>(random()));
  }
}

TEST(SipHash, EqualsTheNaiveReferenceAtEveryLength) {
  std::mt19937_64 random(1);
  std::string message;
  for (size_t length = 0; length < 300; ++length) {
    const HashKey key{random(), random()};
    EXPECT_EQ(siphash13(key, message), naive_siphash(key.k0, key.k1, message, 1, 3)) << length;
    message.push_back(static_cast<char>(random()));
  }
}

TEST(SipHash, WordsAndBytesAgree) {
  std::mt19937_64 random(2);
  for (int i = 0; i < 1000; ++i) {
    const HashKey key{random(), random()};
    const uint64_t one[] = {random()};
    const uint64_t five[] = {random(), random(), random(), random(), random()};
    EXPECT_EQ(siphash13_words(key, one), siphash13(key, one, sizeof one));
    EXPECT_EQ(siphash13_words(key, five), siphash13(key, five, sizeof five));
  }
}

TEST(Mix64, IsABijectionOnASample) {
  std::set<uint64_t> seen;
  for (uint64_t i = 0; i < 10'000; ++i) seen.insert(mix64(i));
  EXPECT_EQ(seen.size(), 10'000u);
}

}  // namespace tidegate::hash_test
