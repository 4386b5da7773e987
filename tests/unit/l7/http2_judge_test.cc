// SPDX-License-Identifier: Apache-2.0
// Http2Session and nghttp2 on the same frames. The fuzzer http2_session goes on from here.
#include "tests/unit/l7/http2_judge.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

namespace tidegate::l7::http2_judge_test {

TEST(Http2Judge, SessionAcceptsAndRefusesWhatNghttp2Does) {
  std::mt19937 random(20'261'128);
  for (int round = 0; round < 1'000; ++round) {
    std::vector<uint8_t> choices(20 + random() % 400);
    for (uint8_t& choice : choices) choice = static_cast<uint8_t>(random());
    const std::string difference = judge_http2(choices.data(), choices.size());
    ASSERT_EQ(difference, "") << "round " << round;
  }
}

}  // namespace tidegate::l7::http2_judge_test
