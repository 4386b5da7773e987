// SPDX-License-Identifier: Apache-2.0
#include "core/des.h"

#include <gtest/gtest.h>

#include "core/crypto.h"

namespace tidegate::des_test {

TEST(Des, MatchesThePublishedExample) {
  // From DNSPod: the key dnspodpass, of which DES uses eight bytes.
  EXPECT_EQ(hex_encode(des_seal("dnspodpa", "www.dnspod.cn")), "87ae992c1321f299da3c0210a9900ae7");
  // Made with the openssl command: enc -des-ecb of the legacy provider.
  EXPECT_EQ(des_open("dnspodpa", *hex_decode("144e9041e2ae827f20be462611a716c681f90c862ccdf0b31ac7446732a7f01c")),
            "121.12.53.35;106.227.19.35");
}

TEST(Des, OpensWhatItSealedAndRefusesWhatIsNoWholeBlocks) {
  const std::string key = "8 bytes!";
  for (const size_t bytes : {0U, 1U, 7U, 8U, 9U, 1'000U}) {
    const std::string plain(bytes, 'p');
    const std::string sealed = des_seal(key, plain);
    EXPECT_EQ(sealed.size(), bytes / 8 * 8 + 8) << "padded to whole blocks";
    EXPECT_EQ(des_open(key, sealed), plain);
    EXPECT_FALSE(des_open(key, sealed.substr(1)));
    EXPECT_NE(des_open("my bytes", sealed), plain);
  }
  EXPECT_FALSE(des_open(key, ""));
}

}  // namespace tidegate::des_test
