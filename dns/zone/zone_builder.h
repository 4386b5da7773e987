// SPDX-License-Identifier: Apache-2.0
// ZoneBuilder: makes a Zone from the records of a master file. It groups records by owner, adds the empty
// non-terminals, finds the names below delegations and DNAMEs, checks the rules of RFC 1034 and 2181, and encodes. It
// finds every fault, each with its place.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "conf/fault.h"
#include "dns/zone/master_file.h"
#include "dns/zone/zone.h"

namespace tidegate::dns {

class ZoneBuilder {
 public:
  // The arguments must outlive the builder.
  ZoneBuilder(const Name& apex, const MasterFile& file, std::vector<Fault>& faults)
      : apex_(apex), file_(file), faults_(faults) {}
  // Null if there is any fault, also in the file.
  std::shared_ptr<const Zone> build();

 private:
  static constexpr uint32_t kNoNode = UINT32_MAX;
  static constexpr uint32_t kNoRecord = UINT32_MAX;

  struct Node {
    std::span<const uint8_t> name;  // in the bytes of the MasterFile
    uint64_t hash = 0;
    uint32_t parent = kNoNode;  // kNoNode for the apex
    uint32_t occluder = kNoNode;
    uint32_t wildcard = kNoNode;
    uint32_t first_record = kNoRecord;  // a list linked by next_record_, in the file's order
    uint32_t last_record = kNoRecord;
    uint32_t block = 0;  // set when it was encoded
    uint8_t depth = 0;   // labels below the apex
    uint8_t flags = 0;
  };
  // One RRset of a node while it is encoded for the arena.
  struct Encoding {
    std::vector<uint8_t> wire;
    std::vector<uint16_t> apex_pointers;
    uint16_t records = 0;
  };

  void group_records();
  uint32_t find_or_add(std::span<const uint8_t> name);
  uint32_t find(std::span<const uint8_t> name, uint64_t hash) const;
  uint32_t find_or_wildcard(std::span<const uint8_t> name) const;
  void grow_table();
  void drop_repeated(Node& node);
  uint64_t data_key(const MasterRecord& record) const;
  bool same_data(const MasterRecord& a, const MasterRecord& b) const;
  void check_and_flag(Node& node);
  void check_apex();
  void find_occluders();
  void encode_nodes(Zone& zone);
  void encode_node(Zone& zone, Node& node);
  void encode_glue(Zone& zone, const Node& node, NodeView::Header& header);
  void encode_negative_soa(Zone& zone);
  void link_blocks(Zone& zone);

  void collect_types(const Node& node);
  void append_record(Encoding& to, std::span<const uint8_t> owner, const MasterRecord& record, uint32_t ttl_s) const;
  size_t append_name(Encoding& to, std::span<const uint8_t> name) const;
  // Returns false if it does not fit into a message.
  bool append_rrset(Zone& zone, uint16_t type, uint32_t ttl_s, const Encoding& encoding) const;
  bool ends_in_apex(std::span<const uint8_t> name) const;
  std::string place(const MasterRecord& record) const;  // "file:line"
  void refuse(const MasterRecord& record, std::string_view cause);
  void refuse_at(size_t at, std::string_view cause);

  const Name& apex_;
  const MasterFile& file_;
  std::vector<Fault>& faults_;
  bool refused_ = false;
  std::vector<Node> nodes_;
  std::vector<uint32_t> table_;        // open addressing over nodes_
  std::vector<uint32_t> next_record_;  // parallel to the file's records
  std::vector<uint32_t> sorted_;       // temporary: a node's records by type
  std::vector<std::string> warnings_;  // at most kMaxWarnings
  size_t repeated_ = 0;                // number of repeated records that were dropped
};

}  // namespace tidegate::dns
