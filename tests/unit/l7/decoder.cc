// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/l7/decoder.h"

#include <gtest/gtest.h>

#include <random>

namespace tidegate::l7::test {

std::string decoded(Coding coding, std::string_view bytes) {
  Decoder decoder(coding);
  EXPECT_TRUE(decoder.feed(bytes) && decoder.ended()) << name(coding);
  return decoder.text;
}

std::string words(size_t bytes, uint64_t seed) {
  constexpr const char* kWords[] = {"{\"id\":", "\"name\":\"", "tide", "gate", "\",",
                                    "\n",       " the ",       "of ",  "and ", "0"};
  std::mt19937_64 random(seed);
  std::string text;
  while (text.size() < bytes) {
    text += kWords[random() % std::size(kWords)];
    if (random() % 8 == 0) text += std::to_string(random() % 100'000);
  }
  text.resize(bytes);
  return text;
}

std::string noise(size_t bytes, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::string text(bytes, '\0');
  for (char& c : text) c = static_cast<char>(random());
  return text;
}

}  // namespace tidegate::l7::test
