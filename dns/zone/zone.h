// SPDX-License-Identifier: Apache-2.0
// Zone: a master file compiled to answers. Every name (also an empty non-terminal) is one block in one arena, found by
// one probe of a hash table. The block has the name's RRsets in wire form.
//
// Pre-encoded RRsets. A record's owner is a compression pointer to the question's name. If a name in its data ends in
// the apex, it has a pointer to the apex instead. Every name answered from this zone ends in the apex, so the question
// contains it. Its offset depends only on the length of the question. The RRset lists the places to patch.
//
// Immutable once built: any thread may read it.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "conf/fault.h"
#include "dns/wire/wire.h"

namespace tidegate::dns {

// Borrows the zone.
struct RrsetView {
  uint16_t type = 0;
  uint16_t records = 0;
  uint32_t ttl_s = 0;
  std::span<const uint8_t> wire;           // whole records; the owner is a pointer to kQnameOffset
  std::span<const uint8_t> apex_pointers;  // big-endian offsets in `wire` of two-byte pointers to the apex

  size_t apex_pointer_count() const { return apex_pointers.size() / 2; }
  uint16_t apex_pointer(size_t index) const { return load_u16(&apex_pointers[index * 2]); }
};

// A name of the zone. Borrows the zone. Null if there is no such name.
class NodeView {
 public:
  NodeView() = default;
  explicit operator bool() const { return block_ != nullptr; }
  std::span<const uint8_t> name() const;
  bool is_delegation() const { return (header().flags & kDelegation) != 0; }
  bool has_dname() const { return (header().flags & kDname) != 0; }
  bool has_cname() const { return (header().flags & kCname) != 0; }
  bool empty() const { return header().rrsets == 0; }  // true for an empty non-terminal
  // Returns false, and does not change `out`, if the name has no such RRset.
  bool find(uint16_t type, RrsetView& out) const;

 private:
  friend class Zone;
  friend class ZoneBuilder;
  static constexpr uint8_t kDelegation = 1, kDname = 2, kCname = 4;
  static constexpr uint16_t kGlueType =
      0;  // addresses of a delegation's servers, with their own owners; type 0 is reserved
  struct Header {
    uint32_t occluder = 0;  // block of the topmost delegation or DNAME above this name, or 0
    uint32_t wildcard = 0;  // block of the "*" child, or 0
    uint16_t rrsets = 0;
    uint8_t flags = 0;
    uint8_t name_bytes = 0;
  };
  struct RrsetHeader {
    uint32_t ttl_s = 0;
    uint32_t wire_bytes = 0;
    uint16_t type = 0;
    uint16_t records = 0;
    uint16_t apex_pointers = 0;
    uint16_t unused = 0;
  };
  explicit NodeView(const uint8_t* block) : block_(block) {}
  Header header() const {
    Header header;
    std::memcpy(&header, block_, sizeof header);
    return header;
  }

  const uint8_t* block_ = nullptr;
};

class Zone {
 public:
  // Null if the text has a fault. Then every fault was added, with file, line and column. No part of a faulty zone is
  // served.
  static std::shared_ptr<const Zone> parse(const std::string& apex, std::string_view file_name, std::string_view text,
                                           std::vector<Fault>& faults);

  const Name& apex() const { return apex_; }
  size_t names() const { return names_; }
  size_t records() const { return records_; }
  size_t memory_bytes() const;
  // Unusual things in the file, each with its place, and how they are read. For people; there are few.
  const std::vector<std::string>& warnings() const { return warnings_; }

  // `hash` is name_hash(lower_name).
  NodeView find(uint64_t hash, std::span<const uint8_t> lower_name) const;
  NodeView apex_node() const { return at(apex_block_); }
  NodeView wildcard_of(NodeView node) const { return at(node.header().wildcard); }
  NodeView occluder_of(NodeView node) const { return at(node.header().occluder); }
  // The additional section of a referral. Its records contain their own owners.
  bool glue_of(NodeView delegation, RrsetView& out) const { return delegation.find(NodeView::kGlueType, out); }
  // The SOA for negative answers: its TTL is the smaller one of its own and its MINIMUM (RFC 2308 §5).
  const RrsetView& negative_soa() const { return negative_soa_; }

 private:
  friend class ZoneBuilder;
  struct Slot {
    uint32_t tag = 0;    // upper half of the hash
    uint32_t block = 0;  // in units of kAlign; 0: empty
  };
  static constexpr size_t kAlign = 4;

  Zone() = default;
  NodeView at(uint32_t block) const {
    return block == 0 ? NodeView() : NodeView(arena_.data() + size_t{block} * kAlign);
  }

  Name apex_;
  std::vector<std::string> warnings_;
  std::vector<uint8_t> arena_;  // blocks, aligned to kAlign; the first unit is unused so that 0 means none
  std::vector<Slot> slots_;     // open addressing, at most half full
  RrsetView negative_soa_;
  uint32_t apex_block_ = 0;
  size_t names_ = 0;
  size_t records_ = 0;
};

}  // namespace tidegate::dns
