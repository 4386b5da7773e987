// SPDX-License-Identifier: Apache-2.0
#include "cache/disk/format.h"

#include <cstring>

#include "cache/disk/crc32c.h"
#include "cache/policy/validation.h"
#include "core/assert.h"
#include "core/lmdb.h"

namespace tidegate::cache {
namespace {

constexpr uint8_t kRecordVersion = 2;
constexpr uint8_t kHeadApart = 1;
constexpr uint8_t kMustRevalidate = 2;
constexpr uint8_t kNoCache = 4;

constexpr size_t kSectionHeadBytes = 6;

template <class T>
void put(std::string& out, T value) {
  char bytes[sizeof(T)];
  std::memcpy(bytes, &value, sizeof(T));
  out.append(bytes, sizeof(T));
}

void put_text(std::string& out, std::string_view text) {
  put(out, static_cast<uint32_t>(text.size()));
  out.append(text);
}

// Takes values off the front. After the first missing value, everything reads as zero and ok() is false.
class Reader {
 public:
  explicit Reader(std::string_view bytes) : rest_(bytes) {}
  template <class T>
  T take() {
    T value{};
    if (!has(sizeof(T))) return value;
    std::memcpy(&value, rest_.data(), sizeof(T));
    rest_.remove_prefix(sizeof(T));
    return value;
  }
  std::string_view take_text() {
    const auto bytes = take<uint32_t>();
    if (!has(bytes)) return {};
    const std::string_view text = rest_.substr(0, bytes);
    rest_.remove_prefix(bytes);
    return text;
  }
  bool at_end() const { return !ok_ || rest_.empty(); }
  bool ok() const { return ok_; }

 private:
  bool has(size_t bytes) {
    ok_ = ok_ && rest_.size() >= bytes;
    return ok_;
  }
  std::string_view rest_;
  bool ok_ = true;
};

void read_freshness(Reader& in, Freshness& freshness) {
  freshness.born_ms = in.take<uint64_t>();
  freshness.lifetime_ms = in.take<uint64_t>();
  freshness.stale_while_revalidate_ms = in.take<uint64_t>();
  freshness.stale_if_error_ms = in.take<uint64_t>();
}

// The checksum of a chunk's name: its CRC starts from this.
uint32_t checksum_of(const ChunkName& name) {
  char bytes[28];
  std::memcpy(bytes, &name.key.high, 8);
  std::memcpy(bytes + 8, &name.key.low, 8);
  std::memcpy(bytes + 16, &name.generation, 8);
  std::memcpy(bytes + 24, &name.index, 4);
  return crc32c({bytes, sizeof bytes});
}

void put_section(std::string& out, uint16_t type, std::string_view text) {
  if (text.empty()) return;
  put(out, type);
  put_text(out, text);
}

// Skips sections of unknown types. Returns false if one must be understood, or if the last one does not end with the
// record.
bool read_sections(Reader& in, Meta& meta) {
  while (!in.at_end()) {
    const auto type = in.take<uint16_t>();
    const std::string_view text = in.take_text();
    if (!in.ok() || (type & kMustUnderstand) != 0) return false;
    if (type == kSectionReasonPhrase) meta.head->reason = text;
    if (type == kSectionCapitals) meta.capitals = text;
  }
  return in.ok();
}

std::string capitals_of(const StoredHead& head) {
  std::string bits((head.spelt_names.size() + 7) / 8, '\0');
  for (size_t i = 0; i < head.spelt_names.size(); ++i) {
    const char c = head.spelt_names[i];
    if (c >= 'A' && c <= 'Z') bits[i / 8] = static_cast<char>(bits[i / 8] | 1 << i % 8);
  }
  return bits;
}

// Sets spelt_names by the capitals. If the capitals do not fit these fields, the names stay in lower case.
void spell_names(StoredHead& head, std::string_view capitals) {
  if (capitals.empty()) return;
  std::string names;
  for (const http1::Field& field : head.fields) names += field.name;
  if ((names.size() + 7) / 8 != capitals.size()) return;
  for (size_t i = 0; i < names.size(); ++i) {
    const bool capital = (static_cast<uint8_t>(capitals[i / 8]) >> i % 8 & 1) != 0;
    if (capital ? names[i] < 'a' || names[i] > 'z' : names[i] >= 'A' && names[i] <= 'Z') return;
    if (capital) names[i] = static_cast<char>(names[i] - 'a' + 'A');
  }
  head.spelt_names = std::move(names);
}

}  // namespace

uint64_t disk_footprint(uint64_t body_bytes, uint64_t head_bytes) {
  const uint64_t whole = body_bytes / kChunkBytes, rest = body_bytes % kChunkBytes;
  const uint64_t rest_pages = rest == 0 ? 0 : (rest + sizeof(uint32_t) + 16 + kPageBytes - 1) / kPageBytes;
  const uint64_t head_pages = head_bytes > kInlineMetaBytes ? (head_bytes + 16 + kPageBytes - 1) / kPageBytes : 0;
  // A leaf page of the meta tree is about two thirds full, so small records count 3/2 times. A constant covers the
  // share in branch pages and in leaf pages of the chunk tree.
  return (whole * 16 + rest_pages + head_pages) * kPageBytes +
         std::min<uint64_t>(head_bytes, kInlineMetaBytes) * 3 / 2 + 256;
}

std::string meta_key(const KeyHash& key, uint64_t variant) {
  std::string out;
  out.reserve(kMetaKeyBytes);  // one allocation: every read makes a key
  return out.append(lmdb::be64(key.high)).append(lmdb::be64(key.low)).append(lmdb::be64(variant));
}

std::optional<MetaKey> decode_meta_key(std::string_view bytes) {
  if (bytes.size() != kMetaKeyBytes) return std::nullopt;
  return MetaKey{{lmdb::be64(bytes.substr(0, 8)), lmdb::be64(bytes.substr(8, 8))}, lmdb::be64(bytes.substr(16, 8))};
}

std::string chunk_key(uint64_t generation, uint32_t index) {
  std::string key = lmdb::be64(generation);
  for (int shift = 24; shift >= 0; shift -= 8) key += static_cast<char>(index >> shift & 0xff);
  return key;
}

std::string encode_meta(std::string_view name, const StoredHead& head, uint64_t disk_generation, uint64_t received_ms,
                        std::string& apart) {
  TIDEGATE_ASSERT(name.size() == kMetaKeyBytes, "a record lies under a meta key");
  TIDEGATE_ASSERT(head.body_bytes / kChunkBytes < kHeadChunk, "the body's length is known and can be indexed");
  apart.clear();
  std::string out(sizeof(uint32_t), '\0');  // room for the CRC
  const std::string capitals = capitals_of(head);
  const size_t head_bytes = 128 + head.field_text.size() + capitals.size() + head.key.size() + head.vary.size() +
                            head.vary_values.size() + 8 * head.tags.size() +
                            std::min(head.reason.size(), kKeptReasonBytes);
  const bool head_apart = head_bytes > kInlineMetaBytes;
  put(out, kRecordVersion);
  put(out, static_cast<uint8_t>((head_apart ? kHeadApart : 0) | (head.freshness.must_revalidate ? kMustRevalidate : 0) |
                                (head.freshness.no_cache ? kNoCache : 0)));
  put(out, head.status);
  put(out, head.generation);
  put(out, disk_generation);
  put(out, received_ms);
  put(out, head.body_bytes);
  put(out, head.freshness.born_ms);
  put(out, head.freshness.lifetime_ms);
  put(out, head.freshness.stale_while_revalidate_ms);
  put(out, head.freshness.stale_if_error_ms);
  put_text(out, head.key);
  put_text(out, head.vary);
  put_text(out, head.vary_values);
  put(out, static_cast<uint32_t>(head.tags.size()));
  for (const uint64_t tag : head.tags) put(out, tag);
  put_text(out, head_apart ? std::string_view() : std::string_view(head.field_text));
  if (head_apart) apart = head.field_text;
  put_section(out, kSectionCapitals, capitals);
  const bool fits = out.size() + head.reason.size() + kSectionHeadBytes <= kInlineMetaBytes;
  if (fits || head.reason.size() <= kKeptReasonBytes) put_section(out, kSectionReasonPhrase, head.reason);
  const uint32_t crc = crc32c(std::string_view(out).substr(sizeof(uint32_t)), crc32c(name));
  std::memcpy(out.data(), &crc, sizeof crc);
  return out;
}

std::optional<Meta> decode_meta(std::string_view name, std::string_view record) {
  if (record.size() > kMaxMetaBytes) return std::nullopt;
  Reader in(record);
  const auto crc = in.take<uint32_t>();
  if (!in.ok() || crc != crc32c(record.substr(sizeof(uint32_t)), crc32c(name))) return std::nullopt;
  if (in.take<uint8_t>() != kRecordVersion) return std::nullopt;
  Meta meta;
  meta.head = std::make_shared<StoredHead>();
  StoredHead& head = *meta.head;
  const auto flags = in.take<uint8_t>();
  meta.head_apart = (flags & kHeadApart) != 0;
  head.freshness.must_revalidate = (flags & kMustRevalidate) != 0;
  head.freshness.no_cache = (flags & kNoCache) != 0;
  head.status = in.take<uint16_t>();
  head.generation = in.take<uint64_t>();
  meta.disk_generation = in.take<uint64_t>();
  meta.received_ms = in.take<uint64_t>();
  head.body_bytes = in.take<uint64_t>();
  read_freshness(in, head.freshness);
  head.key = in.take_text();
  head.vary = in.take_text();
  head.vary_values = in.take_text();
  const auto tags = in.take<uint32_t>();
  if (!in.ok() || tags > record.size() / sizeof(uint64_t)) return std::nullopt;
  for (uint32_t i = 0; i < tags; ++i) head.tags.push_back(in.take<uint64_t>());
  head.field_text = in.take_text();
  const bool plausible = head.body_bytes / kChunkBytes < kHeadChunk && head.status >= 200 && head.status <= 999;
  if (!read_sections(in, meta) || !plausible || !index_head(head, meta.received_ms)) return std::nullopt;
  if (!meta.head_apart) spell_names(head, meta.capitals);
  return meta;
}

bool attach_head(Meta& meta, std::string_view field_text) {
  TIDEGATE_ASSERT(meta.head_apart, "the head is complete");
  meta.head->field_text = field_text;
  if (!index_head(*meta.head, meta.received_ms)) return false;
  spell_names(*meta.head, meta.capitals);
  return true;
}

void encode_chunk(char* out, const ChunkName& name, std::string_view bytes) {
  TIDEGATE_ASSERT(out != nullptr && !bytes.empty(), "a chunk holds bytes");
  const uint32_t crc = crc32c(bytes, checksum_of(name));
  std::memcpy(out, &crc, sizeof crc);
  std::memcpy(out + sizeof crc, bytes.data(), bytes.size());
}

std::optional<std::string_view> decode_chunk(const ChunkName& name, std::string_view value) {
  uint32_t crc = 0;
  if (value.size() < sizeof crc) return std::nullopt;
  std::memcpy(&crc, value.data(), sizeof crc);
  value.remove_prefix(sizeof crc);
  if (crc != crc32c(value, checksum_of(name))) return std::nullopt;
  return value;
}

std::string encode_u64s(uint64_t first, uint64_t second) {
  std::string out;
  put(out, first);
  put(out, second);
  return out;
}

std::optional<std::pair<uint64_t, uint64_t>> decode_u64s(std::string_view bytes) {
  if (bytes.size() != 16) return std::nullopt;
  Reader in(bytes);
  const auto first = in.take<uint64_t>();
  return std::pair(first, in.take<uint64_t>());
}

}  // namespace tidegate::cache
