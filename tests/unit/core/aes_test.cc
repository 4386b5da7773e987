// SPDX-License-Identifier: Apache-2.0
#include "core/aes.h"

#include <gtest/gtest.h>

#include "core/crypto.h"

namespace tidegate::aes_test {

TEST(Aes, OpensWhatOthersSealed) {
  // Made with the openssl command: enc -aes-128-cbc.
  const std::string cbc = *hex_decode(
      "101112131415161718191a1b1c1d1e1f"
      "ea9847f4c4f81177842c8689e66dc7b6");
  EXPECT_EQ(aes128_open(AesMode::cbc, *hex_decode("000102030405060708090a0b0c0d0e0f"), cbc), "a client asks");
  // NIST's test case 2 of GCM (McGrew and Viega, appendix B).
  const std::string gcm = std::string(12, '\0') + *hex_decode(
                                                      "0388dace60b6a392f328c2b971b2fe78"
                                                      "ab6e47d42cec13bdf53a67b21257bddf");
  EXPECT_EQ(aes128_open(AesMode::gcm, std::string(16, '\0'), gcm), std::string(16, '\0'));
}

TEST(Aes, OpensWhatItSealedAndNothingElse) {
  const std::string key(16, 'k');
  for (const AesMode mode : {AesMode::cbc, AesMode::gcm}) {
    for (const size_t bytes : {0U, 1U, 15U, 16U, 17U, 5'000U}) {
      const std::string plain(bytes, 'p');
      const std::string sealed = aes128_seal(mode, key, plain);
      EXPECT_EQ(aes128_open(mode, key, sealed), plain) << bytes;
      EXPECT_NE(aes128_seal(mode, key, plain), sealed) << "an IV of its own";
      for (size_t cut = 0; cut < std::min<size_t>(sealed.size(), 40); ++cut) {
        EXPECT_NE(aes128_open(mode, key, sealed.substr(0, cut)), plain.empty() ? "x" : plain) << cut;
      }
    }
  }
  std::string damaged = aes128_seal(AesMode::gcm, key, "a client asks");
  for (size_t at = 0; at < damaged.size(); ++at) {
    damaged[at] ^= 1;
    EXPECT_FALSE(aes128_open(AesMode::gcm, key, damaged)) << at;
    damaged[at] ^= 1;
  }
  EXPECT_FALSE(aes128_open(AesMode::gcm, std::string(16, 'x'), damaged)) << "another key";
}

}  // namespace tidegate::aes_test
