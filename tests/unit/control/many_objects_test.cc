// SPDX-License-Identifier: Apache-2.0
// Messages between controls: many objects in one answer, and long lines.
#include "control/hosts/many_objects.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "control/hosts/long_lines.h"
#include "control/limits.h"
#include "core/crypto.h"

namespace tidegate::testing::many_objects_test {

using ::testing::HasSubstr;

std::string why(const Result<HashedObjects>& objects) { return objects ? "" : objects.error().message; }

TEST(ManyObjects, ComeInOrderAndAsManyAsFit) {
  std::string with_every_byte;
  for (int c = 0; c < 256; ++c) with_every_byte += static_cast<char>(c);
  const std::vector<std::string> contents = {"", "one\n", with_every_byte, std::string(300'000, '\n'), "not sent"};
  std::vector<std::string> asked;
  std::string answer;
  for (const std::string& bytes : contents) {
    asked.push_back(sha256_hex(bytes));
    if (bytes != "not sent") append_object(answer, asked.back(), bytes);
  }
  EXPECT_EQ(*decode_hashes(encode_hashes(asked)), asked);
  const Result<HashedObjects> objects = decode_objects(answer, asked);
  ASSERT_TRUE(objects) << objects.error().message;
  ASSERT_EQ(objects->size(), 4u);
  for (size_t i = 0; i < objects->size(); ++i) {
    EXPECT_EQ((*objects)[i].first, asked[i]);
    EXPECT_TRUE((*objects)[i].second == contents[i]);
  }
}

TEST(ManyObjects, AreNotWhatTheirHashesSayOrWereNotAskedFor) {
  const std::string a = sha256_hex("a"), b = sha256_hex("b");
  EXPECT_THAT(why(decode_objects("", {a})), HasSubstr("nothing came"));
  EXPECT_THAT(why(decode_objects(a + " 1\nx", {a})), HasSubstr("not what its hash says"));
  EXPECT_THAT(why(decode_objects(b + " 1\nb", {a, b})), HasSubstr("something else came"));
  EXPECT_THAT(why(decode_objects(a + " 1\na" + b + " 1\nb", {a})), HasSubstr("more objects than"));
  for (const char* size :
       {"2\na", "", "1", "x\na", "-1\na", " 1\na", "99999999999999999999999\na", "18446744073709551615\na"}) {
    EXPECT_THAT(why(decode_objects(a + " " + size, {a})), HasSubstr("its size is no number")) << size;
  }
  std::string answer;
  append_object(answer, a, "a");
  for (size_t cut = 1; cut < answer.size(); ++cut) EXPECT_FALSE(decode_objects(answer.substr(0, cut), {a}));
  for (size_t at = 0; at < answer.size(); ++at) {
    std::string changed = answer;
    changed[at] = static_cast<char>(changed[at] ^ 1);
    EXPECT_FALSE(decode_objects(changed, {a})) << at;
  }
}

TEST(ManyObjects, AreAskedForByAListOfHashes) {
  const std::string hash = '"' + sha256_hex("a") + '"';
  EXPECT_TRUE(decode_hashes("[" + hash + "]"));
  for (const std::string& body : {std::string(), std::string("[]"), std::string("{}"), hash, "[" + hash + ",1]",
                                  "[" + hash, std::string("[\"short\"]"), "[\"" + std::string(64, 'A') + "\"]"}) {
    EXPECT_FALSE(decode_hashes(body)) << body;
  }
  std::string many = "[" + hash;
  for (size_t i = 1; i < kMaxObjectsAsked; ++i) many += "," + hash;
  EXPECT_LT(many.size() + 1, kMaxObjectsAskedBytes) << "as many as may be asked for are not refused for their length";
  EXPECT_TRUE(decode_hashes(many + "]"));
  EXPECT_FALSE(decode_hashes(many + "," + hash + "]"));
}

// A twin of one string. Lines of every length come in pieces of every length.
TEST(LongLines, AreCutWhereTheyEnd) {
  std::mt19937 random(11);
  for (int round = 0; round < 50; ++round) {
    std::string stream;
    std::vector<std::string> expected, got;
    for (int line = 0; line < 20; ++line) {
      const size_t most[] = {5, 1'000, 3 * LongLines::kPieceBytes};
      expected.emplace_back(random() % most[random() % 3], static_cast<char>('a' + line));
      stream += expected.back() + "\n";
    }
    LongLines lines;
    size_t taken = 0;
    for (size_t at = 0; at < stream.size();) {
      const size_t count = std::min<size_t>(stream.size() - at, 1 + random() % (random() % 2 == 0 ? 40 : 200'000));
      lines.append(std::string_view(stream).substr(at, count));
      at += count;
      while (lines.has_line() && random() % 3 != 0) {
        const LongLines::Line line = lines.take();
        got.push_back(line.joined());
        EXPECT_EQ(line.size, got.back().size());
        taken += line.size;
      }
      EXPECT_LE(taken + lines.size(), at);
    }
    while (lines.has_line()) got.push_back(lines.take().joined());
    EXPECT_TRUE(got == expected);
    EXPECT_EQ(lines.size(), 0u);
  }
}

}  // namespace tidegate::testing::many_objects_test
