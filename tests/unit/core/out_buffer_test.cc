// SPDX-License-Identifier: Apache-2.0
#include "core/out_buffer.h"

#include <gtest/gtest.h>

#include <random>

namespace tidegate::out_buffer_test {

// A twin of one string: pieces of every kind and size go in, and come out in order.
TEST(OutBuffer, GivesBackInOrderWhatWasAppended) {
  std::mt19937 random(3);
  for (int round = 0; round < 200; ++round) {
    OutBuffer buffer;
    std::string twin, got;
    char letter = 'a';
    const auto piece = [&] {
      const size_t most[] = {10, OutBuffer::kCopiedBytes + 10, 3 * OutBuffer::kCopiedBytes};
      letter = letter == 'z' ? 'a' : static_cast<char>(letter + 1);
      return std::string(random() % most[random() % 3], letter);
    };
    for (int step = 0; step < 60; ++step) {
      std::string bytes = piece();
      if (random() % 2 == 0)
        twin += bytes;
      else
        bytes.clear();
      switch (random() % 4) {
        case 0:
          buffer.append(bytes);
          break;
        case 1:
          buffer.take(std::move(bytes));
          break;
        case 2:
          buffer.append(std::make_shared<const std::string>(std::move(bytes)));
          break;
        default:
          buffer.tail() += bytes;
      }
      while (random() % 3 != 0 && buffer.size() > 0) {
        const std::string_view front = buffer.front();
        ASSERT_FALSE(front.empty());
        const size_t sent = 1 + random() % front.size();
        got += front.substr(0, sent);
        buffer.consume(sent);
      }
      ASSERT_EQ(buffer.size(), twin.size() - got.size());
    }
    while (buffer.size() > 0) {
      got += buffer.front();
      buffer.consume(buffer.front().size());
    }
    EXPECT_TRUE(got == twin);
    EXPECT_TRUE(buffer.front().empty());
  }
}

TEST(OutBuffer, TakesLargeBytesWithoutACopy) {
  OutBuffer buffer;
  std::string answer(1 << 20, 'x');
  const char* const where = answer.data();
  buffer.append("head");
  buffer.take(std::move(answer));
  const auto shared = std::make_shared<const std::string>(1 << 20, 'y');
  buffer.append(shared);
  buffer.consume(4);
  EXPECT_EQ(buffer.front().data(), where);
  buffer.consume(1 << 20);
  EXPECT_EQ(buffer.front().data(), shared->data());
  buffer.consume(1 << 20);
  EXPECT_EQ(shared.use_count(), 1) << "what was sent is let go";
}

}  // namespace tidegate::out_buffer_test
