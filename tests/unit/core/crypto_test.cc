// SPDX-License-Identifier: Apache-2.0
#include "core/crypto.h"

#include <gtest/gtest.h>

#include <cctype>
#include <random>

#include "core/sha256_stream.h"
#include "core/signing_key.h"
#include "core/tls.h"

namespace tidegate::crypto_test {

std::string text_of(const Sha256& digest) { return {reinterpret_cast<const char*>(digest.data()), digest.size()}; }
std::string unhex(std::string_view hex) { return hex_decode(hex).value(); }

TEST(Digests, Sha256OfTheStandardsExample) {
  EXPECT_EQ(sha256_hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(sha256_hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

TEST(Digests, PiecesGiveTheDigestOfTheWhole) {
  std::mt19937 random(7);
  for (int round = 0; round < 200; ++round) {
    Sha256Stream stream;
    std::string whole;
    for (int piece = 0; piece < round; ++piece) {
      const std::string bytes(random() % (piece % 50 == 0 ? 5000 : 20), static_cast<char>(random()));
      stream.add(bytes);
      whole += bytes;
    }
    ASSERT_EQ(stream.hex(), sha256_hex(whole)) << round << " pieces";
  }
}

TEST(Digests, Md5OfTheHttpDnsSignatureExample) {
  EXPECT_EQ(md5_hex("www.aliyun.com-IAmASecret-1534316400"), "60c71e98b6d7fcbb366243e224eab457");
}

TEST(Hmac, FollowsRfc4231) {
  EXPECT_EQ(hex_encode(text_of(hmac_sha256(std::string(20, '\x0b'), "Hi There"))),
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
  EXPECT_EQ(hex_encode(text_of(hmac_sha256("Jefe", "what do ya want for nothing?"))),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
  // §4.7: a key longer than the block.
  EXPECT_EQ(hex_encode(text_of(
                hmac_sha256(std::string(131, '\xaa'), "Test Using Larger Than Block-Size Key - Hash Key First"))),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
}

TEST(Hkdf, FollowsRfc5869WithAZeroSalt) {  // Appendix A.3
  EXPECT_EQ(hex_encode(hkdf_sha256(std::string(22, '\x0b'), "", 42)),
            "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8");
}

TEST(Hkdf, GivesUnrelatedKeysForUnrelatedPurposes) {
  EXPECT_NE(hkdf_sha256("secret", "a", 32), hkdf_sha256("secret", "b", 32));
  EXPECT_EQ(hkdf_sha256("secret", "a", 100).substr(0, 32), hkdf_sha256("secret", "a", 32));
}

TEST(HashKeys, AreTheSameForTheSameSecretAndPurposeOnly) {
  const HashKey key = derive_hash_key("secret", "flows");
  EXPECT_EQ(key.k0, derive_hash_key("secret", "flows").k0);
  EXPECT_EQ(key.k1, derive_hash_key("secret", "flows").k1);
  EXPECT_NE(key.k0, derive_hash_key("secret", "cache").k0);
  EXPECT_NE(key.k0, derive_hash_key("other", "flows").k0);
}

TEST(Random, DoesNotRepeat) {
  EXPECT_EQ(random_bytes(32).size(), 32u);
  EXPECT_NE(random_bytes(32), random_bytes(32));
}

TEST(Hex, TakesBothCasesAndRefusesTheRest) {
  EXPECT_EQ(hex_encode(std::string("\x00\xff\x1a", 3)), "00ff1a");
  EXPECT_EQ(unhex("00Ff1A"), std::string("\x00\xff\x1a", 3));
  EXPECT_EQ(unhex(""), "");
  EXPECT_FALSE(hex_decode("0"));
  EXPECT_FALSE(hex_decode("0g"));
}

TEST(Base64, FollowsRfc4648) {  // §10
  EXPECT_EQ(base64_encode(""), "");
  EXPECT_EQ(base64_encode("f"), "Zg==");
  EXPECT_EQ(base64_encode("fo"), "Zm8=");
  EXPECT_EQ(base64_encode("foobar"), "Zm9vYmFy");
  EXPECT_EQ(base64url_encode("\xfb\xff"), "-_8");
}

TEST(Base64, UrlFormDecodesWhatItEncodedAndNothingElse) {
  std::string bytes;
  for (int i = 0; i < 300; ++i) {
    EXPECT_EQ(base64url_decode(base64url_encode(bytes)), bytes);
    bytes.push_back(static_cast<char>(i * 7));
  }
  EXPECT_FALSE(base64url_decode("Zg=="));  // padding
  EXPECT_FALSE(base64url_decode("Z"));     // not a whole byte
  EXPECT_FALSE(base64url_decode("Zh"));    // leftover bits are set
  EXPECT_FALSE(base64url_decode("+/8"));   // the other alphabet
  EXPECT_FALSE(base64url_decode(std::string_view("Zm\0v", 4)));
  EXPECT_FALSE(base64url_decode("Zm9"));  // leftover bits of three characters
  for (int c = 0; c < 256; ++c) {
    const bool known = std::isalnum(c) != 0 || c == '-' || c == '_';
    const std::string digit(1, static_cast<char>(c));
    EXPECT_EQ(base64url_decode("Zm9" + digit).has_value(), known) << c;
    EXPECT_EQ(base64url_decode(digit + "A").has_value(), known) << c;
  }
}

TEST(EqualConstantTime, ComparesContentAndLength) {
  EXPECT_TRUE(equal_constant_time("same", "same"));
  EXPECT_FALSE(equal_constant_time("same", "sane"));
  EXPECT_FALSE(equal_constant_time("same", "sam"));
  EXPECT_TRUE(equal_constant_time("", ""));
}

TEST(SigningKey, CertifiesItselfForItsNames) {
  const SigningKey key = SigningKey::make().value();
  EXPECT_EQ(key.x().size(), 32u);
  EXPECT_EQ(key.sign("message").value().size(), 64u);
  const std::string pem = key.to_pem().value();
  const auto info = inspect_identity(
      {key.certify_itself({{"a.example.test", "*.example.test"}, 1'000, 2'000, std::nullopt}).value(), pem});
  ASSERT_TRUE(info) << info.error().message;
  EXPECT_EQ(info->names, (std::vector<std::string>{"a.example.test", "*.example.test"}));
  EXPECT_EQ(info->not_after_s, 2'000);
  const Result<SigningKey> again = SigningKey::from_pem(pem);
  ASSERT_TRUE(again);
  EXPECT_EQ(again->x(), key.x());
  EXPECT_EQ(again->y(), key.y());
}

TEST(SigningKey, MakesARequestWithEveryNameAlsoOfOneThatIsTooLongForACommonName) {
  const SigningKey key = SigningKey::make().value();
  const std::string longest = std::string(63, 'a') + ".example.test";
  const std::string request = key.request_certificate({longest, "b.example.test"}).value();
  EXPECT_NE(request.find(longest), std::string::npos);
  EXPECT_NE(request.find("b.example.test"), std::string::npos);
  EXPECT_EQ(static_cast<uint8_t>(request[0]), 0x30);  // DER
}

TEST(SigningKey, RefusesWhatIsNoKeyOfItsKind) {
  EXPECT_FALSE(SigningKey::from_pem("nonsense"));
  // Ed25519, RFC 8410 §10.3
  EXPECT_FALSE(SigningKey::from_pem(
      "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n"
      "-----END PRIVATE KEY-----\n"));
}

}  // namespace tidegate::crypto_test
