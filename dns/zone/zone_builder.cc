// SPDX-License-Identifier: Apache-2.0
#include "dns/zone/zone_builder.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <unordered_map>

namespace tidegate::dns {
namespace {

constexpr size_t kMaxWarnings = 20;  // the most warnings that are written one by one

std::span<const uint8_t> parent_name(std::span<const uint8_t> name) { return name.subspan(size_t{1} + name[0]); }

bool is_wildcard(std::span<const uint8_t> name) { return name[0] == 1 && name[1] == '*'; }

bool equal(std::span<const uint8_t> a, std::span<const uint8_t> b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size()) == 0;
}

// The offsets of the names in a type's data, for the types whose names may be compressed (RFC 3597 §4: only those of
// RFC 1035).
struct CompressibleNames {
  size_t fixed_bytes = 0;  // bytes before the first name
  size_t names = 0;
};
CompressibleNames compressible_names(uint16_t type) {
  switch (type) {
    case rrtype::kNs:
    case rrtype::kCname:
    case rrtype::kPtr:
      return {0, 1};
    case rrtype::kMx:
      return {2, 1};
    case rrtype::kSoa:
      return {0, 2};
    default:
      return {0, 0};
  }
}

// The name at the start of rdata; ldns has checked it.
std::span<const uint8_t> leading_name(std::span<const uint8_t> rdata) {
  size_t at = 0;
  while (at < rdata.size() && rdata[at] != 0) at += size_t{1} + rdata[at];
  return rdata.first(std::min(at + 1, rdata.size()));
}

// The earlier records of one name: few are compared one by one, many by their keys.
class SeenRecords {
 public:
  // Returns false if `same(other)` holds for an earlier record.
  template <class Same>
  bool add(uint32_t record, uint64_t key, Same&& same) {
    if (count_ < few_.size()) {
      for (size_t i = 0; i < count_; ++i) {
        if (few_[i].first == key && same(few_[i].second)) return false;
      }
      few_[count_++] = {key, record};
      return true;
    }
    if (many_.empty()) many_.insert(few_.begin(), few_.end());
    const auto [begin, end] = many_.equal_range(key);
    if (std::any_of(begin, end, [&](const auto& other) { return same(other.second); })) return false;
    many_.emplace(key, record);
    return true;
  }

 private:
  std::array<std::pair<uint64_t, uint32_t>, 8> few_;
  size_t count_ = 0;
  std::unordered_multimap<uint64_t, uint32_t> many_;
};

void put_u16(std::vector<uint8_t>& out, uint16_t value) {
  out.push_back(static_cast<uint8_t>(value >> 8));
  out.push_back(static_cast<uint8_t>(value));
}

void put_u32(std::vector<uint8_t>& out, uint32_t value) {
  put_u16(out, static_cast<uint16_t>(value >> 16));
  put_u16(out, static_cast<uint16_t>(value));
}

void put_bytes(std::vector<uint8_t>& out, const void* data, size_t bytes) {
  const auto* from = static_cast<const uint8_t*>(data);
  out.insert(out.end(), from, from + bytes);
}

}  // namespace

std::string ZoneBuilder::place(const MasterRecord& record) const {
  const MasterFile::Place place = file_.place(record.at);
  return fmt::format("{}:{}", place.file, place.line);
}

void ZoneBuilder::refuse(const MasterRecord& record, std::string_view cause) { refuse_at(record.at, cause); }

void ZoneBuilder::refuse_at(size_t at, std::string_view cause) {
  refused_ = true;
  (void)file_.refuse(at, cause, faults_);
}

std::shared_ptr<const Zone> ZoneBuilder::build() {
  group_records();
  for (Node& node : nodes_) {
    drop_repeated(node);
    check_and_flag(node);
  }
  if (!file_.incomplete) check_apex();
  if (refused_ || file_.incomplete) return nullptr;
  find_occluders();

  std::shared_ptr<Zone> zone(new Zone());
  zone->apex_ = apex_;
  if (repeated_ > warnings_.size()) {
    warnings_.push_back(fmt::format("{} more records stand twice", repeated_ - warnings_.size()));
  }
  zone->warnings_ = std::move(warnings_);
  encode_nodes(*zone);
  if (refused_) return nullptr;
  link_blocks(*zone);
  zone->apex_block_ = nodes_[0].block;
  return zone;
}

bool ZoneBuilder::ends_in_apex(std::span<const uint8_t> name) const {
  if (name.size() < apex_.bytes()) return false;
  // Equal bytes at the end are not enough: the apex must begin at a label.
  const size_t start = name.size() - apex_.bytes();
  size_t at = 0;
  while (at < start) at += size_t{1} + name[at];
  if (at != start) return false;
  Name tail;
  return tail.parse(name.subspan(start)) && equal(tail.wire(), apex_.wire());
}

uint32_t ZoneBuilder::find(std::span<const uint8_t> name, uint64_t hash) const {
  const size_t mask = table_.size() - 1;
  for (size_t i = hash & mask; table_[i] != kNoNode; i = (i + 1) & mask) {
    const Node& node = nodes_[table_[i]];
    if (node.hash == hash && equal(node.name, name)) return table_[i];
  }
  return kNoNode;
}

void ZoneBuilder::grow_table() {
  table_.assign(std::bit_ceil(std::max<size_t>(nodes_.size() * 4, 64)), kNoNode);
  const size_t mask = table_.size() - 1;
  for (uint32_t index = 0; index < nodes_.size(); ++index) {
    size_t i = nodes_[index].hash & mask;
    while (table_[i] != kNoNode) i = (i + 1) & mask;
    table_[i] = index;
  }
}

// Adds the name and every name between it and the apex (RFC 4592 §2.2.2: empty non-terminals exist).
uint32_t ZoneBuilder::find_or_add(std::span<const uint8_t> name) {
  uint32_t below = kNoNode;
  uint32_t first = kNoNode;
  for (;; name = parent_name(name)) {
    const uint64_t hash = name_hash(name);
    uint32_t index = find(name, hash);
    const bool known = index != kNoNode;
    if (!known) {
      index = static_cast<uint32_t>(nodes_.size());
      Node node;
      node.name = name;
      node.hash = hash;
      nodes_.push_back(node);
      if (nodes_.size() * 2 > table_.size()) {
        grow_table();
      } else {
        const size_t mask = table_.size() - 1;
        size_t i = hash & mask;
        while (table_[i] != kNoNode) i = (i + 1) & mask;
        table_[i] = index;
      }
    }
    if (first == kNoNode) first = index;
    if (below != kNoNode) {
      nodes_[below].parent = index;
      if (is_wildcard(nodes_[below].name)) nodes_[index].wildcard = below;
    }
    if (known || name.size() == apex_.bytes()) return first;
    below = index;
  }
}

void ZoneBuilder::group_records() {
  grow_table();
  find_or_add(apex_.wire());
  next_record_.assign(file_.records.size(), kNoRecord);
  uint32_t previous_owner = kNoNode;
  for (uint32_t i = 0; i < file_.records.size(); ++i) {
    const MasterRecord& record = file_.records[i];
    const auto owner = file_.owner(record);
    const bool same_owner = i > 0 && file_.records[i - 1].owner == record.owner;
    const bool inside = same_owner || ends_in_apex(owner);
    if (!inside) {
      refuse(record, fmt::format("{} is not within the zone {}", name_to_text(owner), name_to_text(apex_.wire())));
    }
    const uint32_t index = same_owner ? previous_owner : inside ? find_or_add(owner) : kNoNode;
    previous_owner = index;
    if (index == kNoNode) continue;
    Node& node = nodes_[index];
    (node.first_record == kNoRecord ? node.first_record : next_record_[node.last_record]) = i;
    node.last_record = i;
  }
}

// Upper and lower case are the same in names (RFC 4343), and nowhere else.
bool ZoneBuilder::same_data(const MasterRecord& a, const MasterRecord& b) const {
  if (a.type != b.type || a.rdata_bytes != b.rdata_bytes) return false;
  auto rest_a = file_.rdata(a), rest_b = file_.rdata(b);
  if (equal(rest_a, rest_b)) return true;
  const CompressibleNames names = a.type == rrtype::kDname ? CompressibleNames{0, 1} : compressible_names(a.type);
  if (names.names == 0 || !equal(rest_a.first(names.fixed_bytes), rest_b.first(names.fixed_bytes))) return false;
  rest_a = rest_a.subspan(names.fixed_bytes), rest_b = rest_b.subspan(names.fixed_bytes);
  for (size_t i = 0; i < names.names; ++i) {
    Name name_a, name_b;
    if (!name_a.parse(rest_a) || !name_b.parse(rest_b) || !equal(name_a.wire(), name_b.wire())) return false;
    rest_a = rest_a.subspan(name_a.bytes()), rest_b = rest_b.subspan(name_b.bytes());
  }
  return equal(rest_a, rest_b);
}

// An RRset is a set (RFC 2181 §5): the first of equal records stays.
void ZoneBuilder::drop_repeated(Node& node) {
  if (node.first_record == node.last_record) return;
  SeenRecords seen;
  uint32_t previous = kNoRecord;
  for (uint32_t i = node.first_record; i != kNoRecord; i = next_record_[i]) {
    const MasterRecord& record = file_.records[i];
    const bool repeated =
        !seen.add(i, data_key(record), [&](uint32_t other) { return same_data(record, file_.records[other]); });
    if (!repeated) {
      previous = i;
      continue;
    }
    if (++repeated_ <= kMaxWarnings) {
      warnings_.push_back(
          fmt::format("{}: the same record of {} stands twice: one is served", place(record), name_to_text(node.name)));
    }
    next_record_[previous] = next_record_[i];
    if (node.last_record == i) node.last_record = previous;
  }
}

// Equal records have equal keys.
uint64_t ZoneBuilder::data_key(const MasterRecord& record) const {
  uint64_t key =
      0xcbf29ce484222325ULL ^ record.type;  // FNV-1a; the zone's author chooses the data, and could harm only himself
  for (const uint8_t byte : file_.rdata(record)) key = (key ^ (byte | 0x20)) * 0x100000001b3ULL;
  return key;
}

void ZoneBuilder::check_and_flag(Node& node) {
  uint32_t cname = kNoRecord, dname = kNoRecord, other = kNoRecord;
  for (uint32_t i = node.first_record; i != kNoRecord; i = next_record_[i]) {
    const MasterRecord& record = file_.records[i];
    switch (record.type) {
      case rrtype::kCname:
        if (cname != kNoRecord) refuse(record, fmt::format("{} has a second CNAME", name_to_text(node.name)));
        cname = i;
        break;
      case rrtype::kDname:
        if (dname != kNoRecord) refuse(record, fmt::format("{} has a second DNAME", name_to_text(node.name)));
        dname = i;
        break;
      case rrtype::kSoa:
        if (!equal(node.name, apex_.wire())) refuse(record, "an SOA that is not at the zone's apex");
        other = i;
        break;
      case rrtype::kNs:
        if (!equal(node.name, apex_.wire())) node.flags |= NodeView::kDelegation;
        other = i;
        break;
      default:
        other = i;
    }
  }
  if (cname != kNoRecord) {  // RFC 1034 §3.6.2, RFC 2181 §10.1
    node.flags |= NodeView::kCname;
    if (other != kNoRecord || dname != kNoRecord) {
      const MasterRecord& record = file_.records[std::max(cname, other == kNoRecord ? dname : other)];
      refuse(record, fmt::format("{} has a CNAME and other records", name_to_text(node.name)));
    }
  }
  if (dname != kNoRecord) node.flags |= NodeView::kDname;
}

void ZoneBuilder::check_apex() {
  size_t soas = 0, servers = 0;
  const std::string apex = name_to_text(apex_.wire());
  for (uint32_t i = nodes_[0].first_record; i != kNoRecord; i = next_record_[i]) {
    const MasterRecord& record = file_.records[i];
    if (record.type == rrtype::kSoa && ++soas > 1) refuse(record, fmt::format("the zone {} has a second SOA", apex));
    if (record.type == rrtype::kNs) ++servers;
  }
  if (soas == 0) refuse_at(0, fmt::format("the zone {} has no SOA", apex));
  if (servers == 0) refuse_at(0, fmt::format("the zone {} has no NS at its apex", apex));
}

void ZoneBuilder::find_occluders() {
  // Parents before children, because each uses the result of its parent.
  std::vector<uint32_t> by_depth[Name::kMaxLabels + 1];
  for (uint32_t index = 0; index < nodes_.size(); ++index) {
    Node& node = nodes_[index];
    for (size_t at = 0; node.name.size() - at > apex_.bytes(); at += size_t{1} + node.name[at]) ++node.depth;
    by_depth[node.depth].push_back(index);
  }
  for (const auto& level : by_depth) {
    for (const uint32_t index : level) {
      Node& node = nodes_[index];
      if (node.parent != kNoNode) {
        const Node& parent = nodes_[node.parent];
        node.occluder = parent.occluder;
        if (node.occluder == kNoNode && (parent.flags & NodeView::kDname) != 0) node.occluder = node.parent;
      }
      if (node.occluder == kNoNode && (node.flags & NodeView::kDelegation) != 0) node.occluder = index;
    }
  }
}

size_t ZoneBuilder::append_name(Encoding& to, std::span<const uint8_t> name) const {
  const size_t start = to.wire.size();
  if (!ends_in_apex(name)) {
    put_bytes(to.wire, name.data(), name.size());
  } else {
    put_bytes(to.wire, name.data(), name.size() - apex_.bytes());
    to.apex_pointers.push_back(static_cast<uint16_t>(to.wire.size()));
    put_u16(to.wire, kPointerBits);
  }
  return to.wire.size() - start;
}

// If `owner` is empty, it is the pointer to the question's name. Otherwise it is a name of this zone, written in full.
void ZoneBuilder::append_record(Encoding& to, std::span<const uint8_t> owner, const MasterRecord& record,
                                uint32_t ttl_s) const {
  if (owner.empty()) {
    put_u16(to.wire, kPointerBits | kQnameOffset);
  } else {
    append_name(to, owner);
  }
  put_u16(to.wire, record.type);
  put_u16(to.wire, kClassIn);
  put_u32(to.wire, ttl_s);
  const size_t length_at = to.wire.size();
  put_u16(to.wire, 0);
  auto rdata = file_.rdata(record);
  const CompressibleNames names = compressible_names(record.type);
  put_bytes(to.wire, rdata.data(), names.fixed_bytes);
  rdata = rdata.subspan(names.fixed_bytes);
  for (size_t i = 0; i < names.names; ++i) {
    const auto name = leading_name(rdata);
    append_name(to, name);
    rdata = rdata.subspan(name.size());
  }
  put_bytes(to.wire, rdata.data(), rdata.size());
  store_u16(&to.wire[length_at], static_cast<uint16_t>(to.wire.size() - length_at - 2));
  ++to.records;
}

bool ZoneBuilder::append_rrset(Zone& zone, uint16_t type, uint32_t ttl_s, const Encoding& encoding) const {
  if (encoding.wire.size() > kMaxMessageBytes - 512) return false;
  NodeView::RrsetHeader header;
  header.ttl_s = ttl_s;
  header.wire_bytes = static_cast<uint32_t>(encoding.wire.size());
  header.type = type;
  header.records = encoding.records;
  header.apex_pointers = static_cast<uint16_t>(encoding.apex_pointers.size());
  put_bytes(zone.arena_, &header, sizeof header);
  for (const uint16_t pointer : encoding.apex_pointers) put_u16(zone.arena_, pointer);
  put_bytes(zone.arena_, encoding.wire.data(), encoding.wire.size());
  return true;
}

// Puts the node's records into sorted_, by type, in the file's order within a type.
void ZoneBuilder::collect_types(const Node& node) {
  sorted_.clear();
  for (uint32_t i = node.first_record; i != kNoRecord; i = next_record_[i]) sorted_.push_back(i);
  std::stable_sort(sorted_.begin(), sorted_.end(),
                   [&](uint32_t a, uint32_t b) { return file_.records[a].type < file_.records[b].type; });
}

void ZoneBuilder::encode_node(Zone& zone, Node& node) {
  while (zone.arena_.size() % Zone::kAlign != 0) zone.arena_.push_back(0);
  if (zone.arena_.size() / Zone::kAlign > UINT32_MAX) return refuse_at(0, "the zone is too large");
  node.block = static_cast<uint32_t>(zone.arena_.size() / Zone::kAlign);
  NodeView::Header header;
  header.flags = node.flags;
  header.name_bytes = static_cast<uint8_t>(node.name.size());
  const size_t header_at = zone.arena_.size();
  put_bytes(zone.arena_, &header, sizeof header);
  put_bytes(zone.arena_, node.name.data(), node.name.size());

  collect_types(node);
  for (size_t i = 0; i < sorted_.size();) {
    size_t end = i;
    uint32_t ttl_s = UINT32_MAX;  // an RRset has one TTL: the smallest (RFC 2181 §5.2)
    while (end < sorted_.size() && file_.records[sorted_[end]].type == file_.records[sorted_[i]].type) {
      ttl_s = std::min(ttl_s, file_.records[sorted_[end++]].ttl_s);
    }
    Encoding encoding;
    for (size_t k = i; k < end && encoding.wire.size() <= kMaxMessageBytes; ++k) {
      append_record(encoding, {}, file_.records[sorted_[k]], ttl_s);
    }
    const MasterRecord& first = file_.records[sorted_[i]];
    if (!append_rrset(zone, first.type, ttl_s, encoding)) refuse(first, "an RRset does not fit into a DNS message");
    ++header.rrsets;
    zone.records_ += encoding.records;
    i = end;
  }
  if ((node.flags & NodeView::kDelegation) != 0) encode_glue(zone, node, header);
  std::memcpy(&zone.arena_[header_at], &header, sizeof header);
}

// The node that answers for a name: its own, or the wildcard below its closest encloser (RFC 4592 §3.3.1).
uint32_t ZoneBuilder::find_or_wildcard(std::span<const uint8_t> name) const {
  const uint32_t exact = find(name, name_hash(name));
  if (exact != kNoNode || !ends_in_apex(name)) return exact;
  while (name.size() > apex_.bytes()) {
    name = parent_name(name);
    const uint32_t encloser = find(name, name_hash(name));
    if (encloser == kNoNode) continue;
    return nodes_[encloser].occluder == kNoNode ? nodes_[encloser].wildcard : kNoNode;
  }
  return kNoNode;
}

// Every address in this zone for the delegation's servers goes with the referral (RFC 1034 §4.2.1, RFC 9471).
void ZoneBuilder::encode_glue(Zone& zone, const Node& node, NodeView::Header& header) {
  Encoding glue;
  for (uint32_t i = node.first_record; i != kNoRecord; i = next_record_[i]) {
    if (file_.records[i].type != rrtype::kNs) continue;
    Name server;
    if (!server.parse(file_.rdata(file_.records[i]))) continue;
    const uint32_t index = find_or_wildcard(server.wire());
    if (index == kNoNode) continue;
    for (uint32_t k = nodes_[index].first_record; k != kNoRecord; k = next_record_[k]) {
      const MasterRecord& address = file_.records[k];
      if (address.type != rrtype::kA && address.type != rrtype::kAaaa) continue;
      if (glue.wire.size() < kMaxMessageBytes / 2) append_record(glue, server.wire(), address, address.ttl_s);
    }
  }
  if (glue.records == 0) return;
  if (append_rrset(zone, NodeView::kGlueType, 0, glue)) ++header.rrsets;
}

void ZoneBuilder::encode_nodes(Zone& zone) {
  zone.names_ = nodes_.size();
  zone.arena_.reserve(file_.bytes.size() + nodes_.size() * 24 + file_.records.size() * 28);
  zone.arena_.resize(Zone::kAlign);
  for (Node& node : nodes_) {
    encode_node(zone, node);
    if (faults_.size() > kMaxFaults) return;
  }
  if (refused_) return;
  encode_negative_soa(zone);
}

void ZoneBuilder::encode_negative_soa(Zone& zone) {
  Encoding encoding;
  for (uint32_t i = nodes_[0].first_record; i != kNoRecord; i = next_record_[i]) {
    const MasterRecord& record = file_.records[i];
    if (record.type != rrtype::kSoa) continue;
    const auto rdata = file_.rdata(record);
    const uint32_t minimum_s = load_u32(&rdata[rdata.size() - 4]);
    append_record(encoding, {}, record, std::min(record.ttl_s, minimum_s));
  }
  const size_t pointers_at = zone.arena_.size();
  for (const uint16_t pointer : encoding.apex_pointers) put_u16(zone.arena_, pointer);
  put_bytes(zone.arena_, encoding.wire.data(), encoding.wire.size());
  zone.arena_.shrink_to_fit();
  const auto arena = std::span<const uint8_t>(zone.arena_).subspan(pointers_at);
  const size_t pointer_bytes = 2 * encoding.apex_pointers.size();
  zone.negative_soa_ = {rrtype::kSoa, encoding.records, load_u32(&encoding.wire[6]), arena.subspan(pointer_bytes),
                        arena.first(pointer_bytes)};
}

void ZoneBuilder::link_blocks(Zone& zone) {
  zone.slots_.assign(std::bit_ceil(nodes_.size() * 2), Zone::Slot{});
  const size_t mask = zone.slots_.size() - 1;
  for (const Node& node : nodes_) {
    uint8_t* block = zone.arena_.data() + size_t{node.block} * Zone::kAlign;
    NodeView::Header header;
    std::memcpy(&header, block, sizeof header);
    header.wildcard = node.wildcard == kNoNode ? 0 : nodes_[node.wildcard].block;
    header.occluder = node.occluder == kNoNode ? 0 : nodes_[node.occluder].block;
    std::memcpy(block, &header, sizeof header);
    size_t i = node.hash & mask;
    while (zone.slots_[i].block != 0) i = (i + 1) & mask;
    zone.slots_[i] = {static_cast<uint32_t>(node.hash >> 32), node.block};
  }
}

}  // namespace tidegate::dns
