// SPDX-License-Identifier: Apache-2.0
// Bodies in a content coding, made from a stored response.
#include <gtest/gtest.h>

#include "cache/limits.h"
#include "tests/unit/cache/cache_fixture.h"

namespace tidegate::cache::coded_test {

using namespace testing;

class CodedTest : public CacheFixture {
 protected:
  std::shared_ptr<const StoredHead> head(std::string_view path = "/a", const FieldList& request = {}) {
    Lookup hit = find(get(path, request));
    EXPECT_EQ(hit.outcome, LookupOutcome::hit);
    return hit.answer.head;
  }
  // The coded body that is kept for the response. Empty if there is none.
  std::string coded(const StoredHead& of, Coding coding) {
    std::optional<CodedBody> found = cache->find_coded(of, coding, loop);
    if (!found) return {};
    std::string body;
    for (Slice slice; found->body.next(slice) == BodyStep::data;) body += slice.bytes;
    EXPECT_EQ(body.size(), found->bytes);
    return body;
  }
  void purge(std::string value, PurgeKind kind) {
    Purge purge;
    purge.kind = kind;
    purge.value = std::move(value);
    cache->purge(purge);
  }
};

TEST_F(CodedTest, IsFoundByItsCodingAlone) {
  open();
  store("/a", fresh_minute(), "body");
  const auto of = head();
  EXPECT_EQ(coded(*of, Coding::gzip), "");
  const std::string long_body = body_of(200'000);
  cache->store_coded(*of, Coding::gzip, long_body);
  cache->store_coded(*of, Coding::br, "b");
  EXPECT_TRUE(coded(*of, Coding::gzip) == long_body);
  EXPECT_EQ(coded(*of, Coding::br), "b");
  EXPECT_EQ(coded(*of, Coding::zstd), "");
  EXPECT_EQ(cache->totals().objects, 1u) << "they are no responses";
  EXPECT_EQ(metric("tidegate_cache_coded_objects"), 2);
  cache->store_coded(*of, Coding::br, "c");
  EXPECT_EQ(coded(*of, Coding::br), "c") << "in place of the one before";
  EXPECT_EQ(metric("tidegate_cache_coded_objects"), 2);
}

TEST_F(CodedTest, VariantsHaveTheirOwn) {
  open();
  const FieldList varies{{"Cache-Control", "max-age=60"}, {"Vary", "X-Lang"}};
  const FieldList en{{"X-Lang", "en"}}, de{{"X-Lang", "de"}};
  store("/a", varies, "hello", en);
  store("/a", varies, "hallo", de);
  const auto of_en = head("/a", en), of_de = head("/a", de);
  cache->store_coded(*of_en, Coding::gzip, "HELLO");
  EXPECT_EQ(coded(*of_de, Coding::gzip), "");
  cache->store_coded(*of_de, Coding::gzip, "HALLO");
  EXPECT_EQ(coded(*of_en, Coding::gzip), "HELLO");
}

TEST_F(CodedTest, LeavesWithItsResponse) {
  open();
  store("/a", fresh_minute(), "one");
  const auto before = head();
  cache->store_coded(*before, Coding::gzip, "ONE");
  purge("https://www.example.test/a", PurgeKind::url);
  EXPECT_EQ(metric("tidegate_cache_coded_objects"), 0);
  EXPECT_EQ(coded(*before, Coding::gzip), "") << "also for an answer that is still being sent";
  cache->store_coded(*before, Coding::gzip, "ONE");
  EXPECT_EQ(coded(*before, Coding::gzip), "") << "what is compressed when the purge comes is not kept";
  EXPECT_EQ(metric("tidegate_cache_coded_left_total"), 1);
  store("/a", fresh_minute(), "two");
  EXPECT_EQ(coded(*head(), Coding::gzip), "");
}

TEST_F(CodedTest, ATagsPurgeReachesIt) {
  open();
  const FieldList tagged{{"Cache-Control", "max-age=60"}, {"Cache-Tag", "shop"}};
  store("/a", tagged, "one");
  cache->store_coded(*head(), Coding::gzip, "ONE");
  purge("shop", PurgeKind::tag);
  store("/a", tagged, "two");
  EXPECT_EQ(coded(*head(), Coding::gzip), "");
  EXPECT_EQ(metric("tidegate_cache_coded_objects"), 0);
}

// A 304 confirms the body, so its coded forms are still valid.
TEST_F(CodedTest, StaysWhenTheResponseIsConfirmed) {
  open();
  const FieldList stale{{"Cache-Control", "max-age=1"}, {"ETag", "\"v1\""}};
  store("/a", stale, "one");
  const auto before = head();
  cache->store_coded(*before, Coding::gzip, "ONE");
  Lookup leader = find(get("/a"), now_ms() + 5'000);
  ASSERT_EQ(leader.outcome, LookupOutcome::fetch);
  ASSERT_EQ(leader.fill.on_head(response(304, fresh_minute()), now_ms()).kind, FillDecision::Kind::freshened);
  const auto after = head();
  EXPECT_NE(after->generation, before->generation);
  EXPECT_EQ(coded(*after, Coding::gzip), "ONE");
}

TEST_F(CodedTest, IsBoundedLikeAllElseInMemory) {
  Options options;
  options.ram_bytes = 1 << 20;
  open(options);
  store("/a", fresh_minute(), "body");
  const auto of = head();
  cache->store_coded(*of, Coding::gzip, std::string(kCodedBytes + 1, 'x'));
  EXPECT_EQ(metric("tidegate_cache_coded_left_total"), 1);
  cache->store_coded(*of, Coding::gzip, std::string(kCodedBytes, 'x'));
  EXPECT_EQ(metric("tidegate_cache_coded_left_total"), 2) << "a quarter of this shard is less, with what describes it";
  for (int i = 0; i < 30; ++i) {
    const std::string path = "/p" + std::to_string(i);
    store(path, fresh_minute(), "body");
    cache->store_coded(*head(path), Coding::gzip, body_of(100'000));
  }
  EXPECT_LE(cache->totals().ram_bytes, options.ram_bytes);
  EXPECT_LT(metric("tidegate_cache_coded_objects"), 30);
  EXPECT_GT(metric("tidegate_cache_coded_objects"), 0);
}

}  // namespace tidegate::cache::coded_test
