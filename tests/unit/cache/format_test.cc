// SPDX-License-Identifier: Apache-2.0
#include "cache/disk/format.h"

#include <gtest/gtest.h>

#include <cstring>

#include "cache/disk/crc32c.h"
#include "cache/index/purge_table.h"
#include "cache/policy/fields.h"
#include "cache/policy/validation.h"
#include "tests/unit/cache/fields_of.h"

namespace tidegate::cache::format_test {

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

const std::string& name() {
  static const std::string name = meta_key({1, 2}, 3);
  return name;
}

TEST(Crc32c, OfPartsIsThatOfTheWhole) { EXPECT_EQ(crc32c("56789", crc32c("1234")), crc32c("123456789")); }

TEST(Meta, ComesBackAsItWasWritten) {
  std::string apart;
  const auto meta = decode_meta(name(), encode_meta(name(), *sample(), 41, 2'000, apart));
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

TEST(Meta, KeepsSpeltNamesOfEveryHeadAndTheReasonWhereItFits) {
  const auto round_trip = [](const StoredHead& head) {
    std::string apart;
    const std::string record = encode_meta(name(), head, 41, 2'000, apart);
    EXPECT_LE(record.size(), kInlineMetaBytes);
    auto meta = decode_meta(name(), record);
    if (meta && meta->head_apart) EXPECT_TRUE(attach_head(*meta, apart));
    return meta;
  };
  StoredHead head = *sample();
  head.reason = "Sure";
  EXPECT_EQ(round_trip(head)->head->spelt_names, "ETagX-Pad");
  EXPECT_EQ(round_trip(head)->head->reason, "Sure");
  head.reason = std::string(3'000, 'r');
  EXPECT_EQ(round_trip(head)->head->reason, "") << "the registered one will do";
  EXPECT_EQ(round_trip(head)->head->spelt_names, "ETagX-Pad");
  for (size_t padding = 0; padding < 4'000; padding += 50) {  // on a leaf, at the bound, and apart
    StoredHead padded = *sample(padding);
    padded.reason = "Fine Phrase";
    EXPECT_EQ(round_trip(padded)->head->spelt_names, "ETagX-Pad") << padding;
    EXPECT_EQ(round_trip(padded)->head->reason, "Fine Phrase") << padding;
  }
  FieldList many{{"ETag", "\"v1\""}};
  for (int i = 0; i < 400; ++i) many.add("X-A-Field-Of-An-Application-" + std::to_string(i), "v");
  const auto large = make_head({200, many, 1'000, 2'000, 70'000}, {});
  EXPECT_EQ(round_trip(*large)->head->spelt_names, large->spelt_names) << "more names than a leaf has room for";
}

TEST(Meta, ForgetsCapitalsOfOtherFields) {
  std::string apart;
  const std::string record = encode_meta(name(), *sample(4'000), 41, 2'000, apart);
  for (const char* other : {"etag: x\r\nx-p-d: 1\r\n", "etag: x\r\nlonger-pad: 1\r\n", ""}) {
    auto meta = decode_meta(name(), record);
    ASSERT_TRUE(meta);
    EXPECT_TRUE(attach_head(*meta, other));
    std::string names, spelt;  // in lower case
    for (const http1::Field& field : meta->head->fields) names += field.name;
    for (const char c : meta->head->spelt_names) spelt += to_lower(c);
    EXPECT_TRUE(spelt.empty() || spelt == names) << spelt;
  }
  auto meta = decode_meta(name(), record);
  EXPECT_FALSE(attach_head(*meta, "no field"));
}

TEST(Meta, AHeadTooLargeForALeafLiesApart) {
  std::string apart;
  const std::string record = encode_meta(name(), *sample(4'000), 41, 2'000, apart);
  EXPECT_LT(record.size(), kInlineMetaBytes);
  EXPECT_EQ(apart, sample(4'000)->field_text);
  EXPECT_TRUE(decode_meta(name(), record)->head_apart);
}

TEST(Meta, EveryFlippedBitAndEveryCutIsNoticed) {
  std::string apart;
  const std::string record = encode_meta(name(), *sample(), 41, 2'000, apart);
  for (size_t i = 0; i < record.size(); ++i) {
    std::string damaged = record;
    damaged[i] = static_cast<char>(damaged[i] ^ 0x10);
    EXPECT_FALSE(decode_meta(name(), damaged)) << "byte " << i;
    EXPECT_FALSE(decode_meta(name(), record.substr(0, i))) << "cut at " << i;
  }
}

// A record with further sections at its end, and a correct checksum.
std::string with_section(uint16_t type, std::string_view bytes, uint32_t said) {
  std::string apart;
  std::string record = encode_meta(name(), *sample(), 41, 2'000, apart);
  record.append(reinterpret_cast<const char*>(&type), sizeof type);
  record.append(reinterpret_cast<const char*>(&said), sizeof said);
  record.append(bytes);
  const uint32_t crc = crc32c(std::string_view(record).substr(sizeof(uint32_t)), crc32c(name()));
  std::memcpy(record.data(), &crc, sizeof crc);
  return record;
}

TEST(Meta, ASectionThatIsNotKnownIsSteppedOverUnlessItMustBeUnderstood) {
  for (const uint16_t type : {kSectionCapitals, kSectionReasonPhrase, uint16_t{999}}) {
    const auto meta = decode_meta(name(), with_section(type, "later", 5));
    ASSERT_TRUE(meta) << type;
    EXPECT_EQ(meta->head->etag, "\"v1\"");
  }
  EXPECT_TRUE(decode_meta(name(), with_section(7, "", 0)));
  EXPECT_FALSE(decode_meta(name(), with_section(kMustUnderstand | 7, "later", 5)));
  EXPECT_FALSE(decode_meta(name(), with_section(7, "later", 6))) << "longer than the record";
  EXPECT_FALSE(decode_meta(name(), with_section(7, "later", 4))) << "something is left";
}

TEST(Meta, ARecordUnderAnothersNameDoesNotVerify) {
  std::string apart;
  const std::string record = encode_meta(name(), *sample(), 41, 2'000, apart);
  EXPECT_TRUE(decode_meta(name(), record));
  EXPECT_FALSE(decode_meta(meta_key({1, 2}, 4), record));
  EXPECT_FALSE(decode_meta(meta_key({9, 2}, 3), record));
}

TEST(Chunk, IsVerifiedByItsChecksumWhichCoversItsName) {
  const ChunkName mine{{1, 2}, 3, 4};
  std::string value(4 + 5, '\0');
  encode_chunk(value.data(), mine, "hello");
  EXPECT_EQ(decode_chunk(mine, value), "hello");
  for (const ChunkName& other : {ChunkName{{9, 2}, 3, 4}, {{1, 9}, 3, 4}, {{1, 2}, 9, 4}, {{1, 2}, 3, 9}}) {
    EXPECT_FALSE(decode_chunk(other, value));
  }
  value[6] = 'x';
  EXPECT_FALSE(decode_chunk(mine, value));
  EXPECT_FALSE(decode_chunk(mine, "abc"));
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

}  // namespace tidegate::cache::format_test
