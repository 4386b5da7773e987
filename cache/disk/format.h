// SPDX-License-Identifier: Apache-2.0
// How a response is stored in LMDB. Numbers are little-endian. A value that does not decode exactly is damaged.
//
// clang-format off
//   database   key                                       value
//   meta       key hash (16) . variant (8)               record, small enough to stay on a leaf page
//   chunk      generation (8, big-endian) . index (4)    CRC-32C (4) . up to 65,516 bytes of body
//   tag        tag hash (8)                              hard epoch (8) . soft epoch (8)
//   sys        "format", "hash_keys", "progress",
//              "purged_at", "all"
// clang-format on
//
// A chunk value and LMDB's header fill 16 pages. A chunk is written once under a generation and never changed. A meta
// record is written after the last chunk of its body, in the same or a later transaction. So after a crash every meta
// record has its chunks, and chunks without a meta record are swept at the next start. A checksum covers the name as
// well as the bytes, and a chunk's checksum covers its key too. So bytes under a wrong name do not verify.
//
// A record is: CRC-32C (4), version (1), flags (1), status (2), the numbers, key, Vary, tags, fields, then sections up
// to its end. A section is: type (2) . length (4) . bytes. Sections of unknown types are skipped, except those with
// kMustUnderstand in the type: such a record is not used. So a later program can add data without a new format.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "cache/policy/key.h"
#include "cache/stored.h"

namespace tidegate::cache {

constexpr uint64_t kPageBytes = 4'096;       // LMDB uses the machine's pages; x86-64 has these
constexpr size_t kChunkValueBytes = 65'520;  // 16 pages minus the 16-byte page header: no waste
constexpr size_t kChunkBytes = kChunkValueBytes - sizeof(uint32_t);
constexpr uint32_t kHeadChunk = UINT32_MAX;   // index of the chunk that holds a head too big for its meta record
constexpr size_t kInlineMetaBytes = 1'900;    // LMDB keeps a node on a leaf up to about half a page
constexpr size_t kMaxMetaBytes = 256 * 1024;  // maximum size of a decoded record with its head

constexpr uint32_t chunk_count(uint64_t body_bytes) {
  return static_cast<uint32_t>((body_bytes + kChunkBytes - 1) / kChunkBytes);
}
// The bytes of the map that an object takes, in whole pages where LMDB uses whole pages.
uint64_t disk_footprint(uint64_t body_bytes, uint64_t head_bytes);

struct Meta {
  std::shared_ptr<StoredHead> head;  // without field_text when `head_apart`
  uint64_t disk_generation = 0;      // generation of the chunks; a freshened head has its own, later generation
  uint64_t received_ms = 0;          // replaces dates that the head lacks
  bool head_apart = false;           // field_text is in chunk kHeadChunk
  std::string capitals;              // as in kSectionCapitals; used for a head that lies apart
};

// Types of sections. One is the reason phrase, if it is not the registered one. A phrase of more than kKeptReasonBytes
// is left out if the record would not fit on a leaf with it; the answer then has the registered phrase. The other says
// which letters of the field names were capitals. It has one bit for each byte of all names in field_text, from the
// lowest bit of the first byte on. Type 1 is not used any more.
constexpr uint16_t kMustUnderstand = 0x8000;
constexpr uint16_t kSectionReasonPhrase = 2;
constexpr uint16_t kSectionCapitals = 3;

constexpr size_t kKeptReasonBytes = 512;

constexpr size_t kMetaKeyBytes = 24;
std::string meta_key(const KeyHash& key, uint64_t variant);
struct MetaKey {
  KeyHash key;
  uint64_t variant = 0;
};
std::optional<MetaKey> decode_meta_key(std::string_view bytes);
// Names one chunk of one body.
struct ChunkName {
  KeyHash key;
  uint64_t generation = 0;
  uint32_t index = 0;
};
std::string chunk_key(uint64_t generation, uint32_t index);

// Encodes the record for `name` (meta_key). If field_text does not fit into the record, `apart` receives it. Otherwise
// `apart` is empty.
std::string encode_meta(std::string_view name, const StoredHead& head, uint64_t disk_generation, uint64_t received_ms,
                        std::string& apart);
// Checks CRC, version, every length, and that the head parses.
std::optional<Meta> decode_meta(std::string_view name, std::string_view record);
// Adds the head to a record whose head lies apart. Returns false if the head does not parse.
bool attach_head(Meta& meta, std::string_view field_text);

// The bytes of a chunk value, after its CRC was checked. Nothing if it is damaged, or another chunk's value.
void encode_chunk(char* out, const ChunkName& name, std::string_view bytes);  // out: bytes.size() + 4
std::optional<std::string_view> decode_chunk(const ChunkName& name, std::string_view value);

std::string encode_u64s(uint64_t first, uint64_t second);
std::optional<std::pair<uint64_t, uint64_t>> decode_u64s(std::string_view bytes);

}  // namespace tidegate::cache
