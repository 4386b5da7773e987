#include "cache/format.h"

#include <gtest/gtest.h>

#include "cache/crc32c.h"
#include "cache/purge_table.h"
#include "cache/validation.h"
#include "tests/unit/cache/fields_of.h"

namespace tidegate::cache {
namespace {

using testing::FieldList;

TEST(Crc32c, GivesThePublishedCheckValue) {
  EXPECT_EQ(crc32c("123456789"), 0xe3069283U);
  EXPECT_EQ(crc32c(""), 0U);
}

std::shared_ptr<StoredHead> sample(size_t padding = 0) {
  const FieldList fields{{"ETag", "\"v1\""}, {"X-Pad", std::string(padding, 'x')}};
  auto head = make_head({200, fields, 1'000, 2'000, 70'000}, {});
  head->key = "https://www.example.test/a";
  head->vary = "accept-encoding";
  head->vary_values = "br,gzip\n";
  head->tags = {7, 8, 9};
  head->generation = 42;
  head->freshness = {2'000, 60'000, 5, 6, true, true};
  return head;
}

TEST(Meta, ComesBackAsItWasWritten) {
  std::string apart;
  const auto meta = decode_meta(encode_meta(*sample(), 41, 2'000, apart));
  ASSERT_TRUE(meta);
  EXPECT_TRUE(apart.empty());
  EXPECT_FALSE(meta->head_apart);
  EXPECT_EQ(meta->disk_generation, 41U);
  const StoredHead& head = *meta->head;
  EXPECT_EQ(head.status, 200);
  EXPECT_EQ(head.key, "https://www.example.test/a");
  EXPECT_EQ(head.vary, "accept-encoding");
  EXPECT_EQ(head.vary_values, "br,gzip\n");
  EXPECT_EQ(head.field_text, sample()->field_text);
  EXPECT_EQ(head.etag, "\"v1\"");
  EXPECT_EQ(head.tags, (std::vector<uint64_t>{7, 8, 9}));
  EXPECT_EQ(head.body_bytes, 70'000U);
  EXPECT_EQ(head.generation, 42U);
  EXPECT_EQ(head.freshness.born_ms, 2'000U);
  EXPECT_EQ(head.freshness.lifetime_ms, 60'000U);
  EXPECT_EQ(head.freshness.stale_while_revalidate_ms, 5U);
  EXPECT_EQ(head.freshness.stale_if_error_ms, 6U);
  EXPECT_TRUE(head.freshness.must_revalidate);
  EXPECT_TRUE(head.freshness.no_cache);
}

TEST(Meta, AHeadTooLargeForALeafLiesApart) {
  std::string apart;
  const std::string record = encode_meta(*sample(4'000), 41, 2'000, apart);
  EXPECT_LT(record.size(), kInlineMetaBytes);
  EXPECT_EQ(apart, sample(4'000)->field_text);
  EXPECT_TRUE(decode_meta(record)->head_apart);
}

TEST(Meta, EveryFlippedBitAndEveryCutIsNoticed) {
  std::string apart;
  const std::string record = encode_meta(*sample(), 41, 2'000, apart);
  for (size_t i = 0; i < record.size(); ++i) {
    std::string damaged = record;
    damaged[i] = static_cast<char>(damaged[i] ^ 0x10);
    EXPECT_FALSE(decode_meta(damaged)) << "byte " << i;
    EXPECT_FALSE(decode_meta(record.substr(0, i))) << "cut at " << i;
  }
}

TEST(Chunk, IsVerifiedByItsChecksum) {
  std::string value(4 + 5, '\0');
  encode_chunk(value.data(), "hello");
  EXPECT_EQ(decode_chunk(value), "hello");
  value[6] = 'x';
  EXPECT_FALSE(decode_chunk(value));
  EXPECT_FALSE(decode_chunk("abc"));
}

TEST(Chunk, ValuesFillWholePages) { EXPECT_EQ((kChunkValueBytes + 16) % 4096, 0U); }

TEST(PurgeTable, ATagsEpochKillsWhatWasFetchedBeforeIt) {
  PurgeTable table;
  const uint64_t tags[] = {1, 2};
  EXPECT_EQ(table.verdict(tags, 10), PurgeVerdict::live);
  table.purge_tag(2, 10, false);
  EXPECT_EQ(table.verdict(tags, 10), PurgeVerdict::dead);
  EXPECT_EQ(table.verdict(tags, 11), PurgeVerdict::live);
  table.purge_tag(1, 20, true);
  EXPECT_EQ(table.verdict(tags, 15), PurgeVerdict::stale);
  table.purge_all(30, false);
  EXPECT_EQ(table.verdict({}, 30), PurgeVerdict::dead);
  EXPECT_EQ(table.verdict(tags, 31), PurgeVerdict::live);
}

TEST(PurgeTable, PastItsBoundItPurgesMoreThanAskedNeverLess) {
  PurgeTable table;
  for (uint64_t tag = 0; tag <= PurgeTable::kMaxTags; ++tag) table.purge_tag(tag, 5, false);
  const uint64_t first[] = {0};
  EXPECT_EQ(table.verdict(first, 5), PurgeVerdict::dead);
  EXPECT_EQ(table.verdict(first, 6), PurgeVerdict::live);
}

}  // namespace
}  // namespace tidegate::cache
