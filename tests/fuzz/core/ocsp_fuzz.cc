// SPDX-License-Identifier: Apache-2.0
// An OCSP answer from anywhere: only what the issuer signed is good, and everything else has a reason.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "core/assert.h"
#include "core/ocsp.h"

namespace {

// A certificate of a server and that of its issuer, both good until 2126. The corpus has answers of that issuer.
constexpr const char* kChain =
    "-----BEGIN CERTIFICATE-----\n"
    "MIIBAjCBqQIBBzAKBggqhkjOPQQDAjANMQswCQYDVQQDDAJjYTAgFw0yNjExMjcw\n"
    "NjIzNDJaGA8yMTI2MTEwMzA2MjM0MlowDDEKMAgGA1UEAwwBYTBZMBMGByqGSM49\n"
    "AgEGCCqGSM49AwEHA0IABORyZnCvfXg/SYWW2f1fe0t9b0MntLvR/vngc8oKUST/\n"
    "k9iuXGV9EAsimZ01r4ggf96jIkeWtsYWFC+YPq0zdUEwCgYIKoZIzj0EAwIDSAAw\n"
    "RQIhANVSSMhaPhopmp4jj5EUTXiUIlIxg3EO7+hoUMv/IKQGAiAyEp7X4UVfOUFl\n"
    "thyaYMWCNx9JWQ7682D/1Kb/ZXSCgA==\n"
    "-----END CERTIFICATE-----\n"
    "-----BEGIN CERTIFICATE-----\n"
    "MIIBcjCCARegAwIBAgIUV27m7VErNMwEKNOrq3HmfFQYdtQwCgYIKoZIzj0EAwIw\n"
    "DTELMAkGA1UEAwwCY2EwIBcNMjYxMTI3MDYyMzQxWhgPMjEyNjExMDMwNjIzNDFa\n"
    "MA0xCzAJBgNVBAMMAmNhMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEJccrNF1U\n"
    "3zyeZzeOpZ8mFztZW+AZrg394vd4djwbgfm5ifqLwrGlTCophQFP8FtnIYwZ4qz2\n"
    "BUvjB7xpTQPp8qNTMFEwHQYDVR0OBBYEFFnMB3746LuL4uACWZFy5qIYkzwcMB8G\n"
    "A1UdIwQYMBaAFFnMB3746LuL4uACWZFy5qIYkzwcMA8GA1UdEwEB/wQFMAMBAf8w\n"
    "CgYIKoZIzj0EAwIDSQAwRgIhAL5eBbNIFcR7FBuet5+DP1tRwTj5Eoq14tnur1yC\n"
    "5OUGAiEAtRQ6kc04cIsKd2+pRXD+QmRCq/bVwaFlaQ7pBbNO8Zg=\n"
    "-----END CERTIFICATE-----\n";
constexpr int64_t kNowS = 1'800'000'000;

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tidegate;
  const std::string_view answer(reinterpret_cast<const char*>(data), size);
  static const std::string chain = kChain;
  const OcspJudgement judgement = judge_ocsp(chain, answer, kNowS);
  const bool is_good = judgement.verdict == OcspVerdict::good;
  TIDEGATE_ASSERT(is_good == judgement.why.empty(), "whatever is not good has a reason");
  if (is_good || judgement.verdict == OcspVerdict::revoked) {
    TIDEGATE_ASSERT(judgement.next_update_s > kNowS, "what is used holds now");
    TIDEGATE_ASSERT(judgement.next_update_s > judgement.this_update_s, "it ends after its begin");
  }
  return 0;
}
