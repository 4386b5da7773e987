// SPDX-License-Identifier: Apache-2.0
// How a stored response lies in LMDB. Little-endian; anything that does not decode exactly is damage.
//
//   meta   key hash (16) . variant (8)              -> record, small enough to stay on a leaf page
//   chunk  generation (8, big-endian) . index (4)   -> CRC-32C (4) . up to 65,516 bytes of body: 16 pages with LMDB's
//                                                      header
//   tag    tag hash (8)                             -> hard epoch (8) . soft epoch (8)
//   sys    "format", "hash_keys", "progress", "purged_at", "all"
//
// A chunk is written once under a generation and never changed. A meta record is written after the last chunk of its
// body, in the same or a later transaction: whatever a crash leaves, a meta's chunks are there, and chunks without a
// meta are swept at the next start. A checksum covers the name as well as the bytes, of a chunk its key too: what lies
// under another's name, whoever wrote it, does not verify.
//
// A record: CRC-32C (4), version (1), flags (1), status (2), the numbers, key, Vary, tags, fields, then sections to its
// end: type (2) . length (4) . bytes. A section of a type that is not known is skipped, unless kMustUnderstand is in
// its type: then the record is not for this program. So a later program adds what it needs without a new format.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "cache/key.h"
#include "cache/stored.h"

namespace tidegate::cache {

constexpr size_t kChunkValueBytes = 65'520;  // 16 pages less the 16-byte page header: no waste
constexpr size_t kChunkBytes = kChunkValueBytes - sizeof(uint32_t);
constexpr uint32_t kHeadChunk = UINT32_MAX;   // the index under which a head lies that is too big for its meta record
constexpr size_t kInlineMetaBytes = 1'900;    // LMDB keeps a node on a leaf up to about half a page
constexpr size_t kMaxMetaBytes = 256 * 1024;  // of a record with its head, decoded

constexpr uint32_t chunk_count(uint64_t body_bytes) {
  return static_cast<uint32_t>((body_bytes + kChunkBytes - 1) / kChunkBytes);
}
// What an object takes of the map, in whole pages where LMDB uses whole pages.
uint64_t disk_footprint(uint64_t body_bytes, uint64_t head_bytes);

struct Meta {
  std::shared_ptr<StoredHead> head;  // without field_text when `head_apart`
  uint64_t disk_generation = 0;      // under which the chunks lie; a freshened head has a later generation of its own
  uint64_t received_ms = 0;          // for dates in the head that are missing
  bool head_apart = false;           // field_text is in chunk kHeadChunk
};

// Types of sections. Names and reason phrase as the backend spelt them have their numbers; none is written yet.
constexpr uint16_t kMustUnderstand = 0x8000;
constexpr uint16_t kSectionFieldNames = 1;
constexpr uint16_t kSectionReasonPhrase = 2;

std::string meta_key(const KeyHash& key, uint64_t variant);
struct MetaKey {
  KeyHash key;
  uint64_t variant = 0;
};
std::optional<MetaKey> decode_meta_key(std::string_view bytes);
// Which chunk of which body.
struct ChunkName {
  KeyHash key;
  uint64_t generation = 0;
  uint32_t index = 0;
};
std::string chunk_key(uint64_t generation, uint32_t index);

// The record that lies under `name` (meta_key); `apart` receives field_text when it does not fit inline (else it is
// left empty).
std::string encode_meta(std::string_view name, const StoredHead& head, uint64_t disk_generation, uint64_t received_ms,
                        std::string& apart);
// Checks CRC, version, every length, and that the head parses.
std::optional<Meta> decode_meta(std::string_view name, std::string_view record);

// CRC and bytes of a chunk value. Nothing: damaged, or another's.
void encode_chunk(char* out, const ChunkName& name, std::string_view bytes);  // out: bytes.size() + 4
std::optional<std::string_view> decode_chunk(const ChunkName& name, std::string_view value);

std::string encode_u64s(uint64_t first, uint64_t second);
std::optional<std::pair<uint64_t, uint64_t>> decode_u64s(std::string_view bytes);

}  // namespace tidegate::cache
