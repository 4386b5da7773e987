// SPDX-License-Identifier: Apache-2.0
#include "dns/zone/zone.h"

#include "dns/zone/zone_builder.h"

namespace tidegate::dns {

std::span<const uint8_t> NodeView::name() const { return {block_ + sizeof(Header), header().name_bytes}; }

bool NodeView::find(uint16_t type, RrsetView& out) const {
  const Header node = header();
  const uint8_t* at = block_ + sizeof(Header) + node.name_bytes;
  for (uint16_t i = 0; i < node.rrsets; ++i) {
    RrsetHeader rrset;
    std::memcpy(&rrset, at, sizeof rrset);
    const uint8_t* pointers = at + sizeof rrset;
    const uint8_t* wire = pointers + size_t{2} * rrset.apex_pointers;
    if (rrset.type == type) {
      out = {rrset.type,
             rrset.records,
             rrset.ttl_s,
             {wire, rrset.wire_bytes},
             {pointers, size_t{2} * rrset.apex_pointers}};
      return true;
    }
    at = wire + rrset.wire_bytes;
  }
  return false;
}

std::shared_ptr<const Zone> Zone::parse(const std::string& apex, std::string_view file_name, std::string_view text,
                                        std::vector<Fault>& faults) {
  const auto apex_name = Name::from_text(apex);
  if (!apex_name) {
    add_fault(faults, {"bad_zone", {}, {}, 0, 0, "zone " + apex + ": the name is malformed", {}, {}});
    return nullptr;
  }
  const MasterFile file = read_master_file(*apex_name, file_name, text, faults);
  return ZoneBuilder(*apex_name, file, faults).build();
}

size_t Zone::memory_bytes() const { return arena_.capacity() + slots_.capacity() * sizeof(Slot); }

NodeView Zone::find(uint64_t hash, std::span<const uint8_t> lower_name) const {
  const auto tag = static_cast<uint32_t>(hash >> 32);
  const size_t mask = slots_.size() - 1;
  for (size_t i = hash & mask; slots_[i].block != 0; i = (i + 1) & mask) {
    if (slots_[i].tag != tag) continue;
    const NodeView node = at(slots_[i].block);
    const auto name = node.name();
    if (name.size() == lower_name.size() && std::memcmp(name.data(), lower_name.data(), name.size()) == 0) return node;
  }
  return NodeView();
}

}  // namespace tidegate::dns
