// What is remembered of POSTs, in memory and across a restart.
#include "control/idempotency.h"

#include "tests/unit/control/host.h"

namespace tidegate::testing {
namespace {

using Verdict = IdempotencyCache::Verdict;

std::string key_of(size_t i) { return "key-" + std::to_string(i); }

HttpResponse answer_of(size_t i) {
  HttpResponse answer = HttpResponse::json(200, "{\"n\":" + std::to_string(i) + "}");
  answer.body += std::string("\xff\0", 2);  // whatever it is, byte for byte
  answer.headers.emplace_back("ETag", "\"" + std::to_string(i) + "\"");
  return answer;
}

class KeptAnswers : public ::testing::Test {
 protected:
  std::unique_ptr<IdempotencyCache> open() {
    auto cache = std::make_unique<IdempotencyCache>();
    const Result<void> opened = cache->open(path);
    EXPECT_TRUE(opened) << opened.error().message;
    return cache;
  }
  static void answer(IdempotencyCache& cache, size_t i) {
    ASSERT_EQ(cache.begin("scope", key_of(i), "digest").verdict, Verdict::fresh) << i;
    cache.keep("scope", key_of(i), answer_of(i));
  }
  static Verdict ask(IdempotencyCache& cache, size_t i) { return cache.begin("scope", key_of(i), "digest").verdict; }

  TemporaryDirectory directory;
  const std::string path = directory / "answers";
};

TEST_F(KeptAnswers, AreThereAfterARestartByteForByte) {
  {
    const auto cache = open();
    answer(*cache, 1);
    EXPECT_EQ(ask(*cache, 2), Verdict::fresh);  // and never answered
    ASSERT_EQ(ask(*cache, 3), Verdict::fresh);
    HttpResponse large = answer_of(3);
    large.body.resize(IdempotencyCache::kMaxDurableBytes + 1);
    cache->keep("scope", key_of(3), large);
    EXPECT_EQ(ask(*cache, 3), Verdict::repeated);
  }
  const auto cache = open();
  const IdempotencyCache::Lookup again = cache->begin("scope", key_of(1), "digest");
  ASSERT_EQ(again.verdict, Verdict::repeated);
  EXPECT_EQ(again.answer->status, 200);
  EXPECT_EQ(again.answer->headers, answer_of(1).headers);
  EXPECT_EQ(again.answer->body, answer_of(1).body);
  EXPECT_EQ(cache->begin("scope", key_of(1), "other").verdict, Verdict::other_body);
  EXPECT_EQ(cache->begin("elsewhere", key_of(1), "digest").verdict, Verdict::fresh);
  EXPECT_EQ(ask(*cache, 2), Verdict::fresh) << "what was under way is not";
  EXPECT_EQ(ask(*cache, 3), Verdict::fresh) << "too large to be kept";
}

TEST_F(KeptAnswers, AreBoundedAndTheOldestGo) {
  constexpr size_t kMore = 100;
  {
    const auto cache = open();
    for (size_t i = 0; i < IdempotencyCache::kMaxKept + kMore; ++i) answer(*cache, i);
  }
  {
    const auto cache = open();
    EXPECT_EQ(ask(*cache, kMore), Verdict::repeated);
    EXPECT_EQ(ask(*cache, IdempotencyCache::kMaxKept + kMore - 1), Verdict::repeated);
    answer(*cache, kMore - 1);  // it had gone; the oldest makes room
  }
  const auto cache = open();
  EXPECT_EQ(ask(*cache, kMore - 1), Verdict::repeated);
  EXPECT_EQ(ask(*cache, kMore), Verdict::fresh);
}

TEST_F(KeptAnswers, ADamagedFileIsBegunAnew) {
  {
    const auto cache = open();
    answer(*cache, 1);
  }
  std::ofstream(path + "/data.mdb", std::ios::in | std::ios::binary) << std::string(8192, 'x');
  {
    const auto cache = open();
    answer(*cache, 1);
  }
  const auto cache = open();
  EXPECT_EQ(ask(*cache, 1), Verdict::repeated);
}

}  // namespace
}  // namespace tidegate::testing
