// SPDX-License-Identifier: Apache-2.0
#include "l4/neighbour.h"

#include <algorithm>

#include "core/assert.h"
#include "core/hash.h"
#include "l4/rounds.h"

namespace tidegate::l4 {
namespace {

LookupKey key_of(const IpAddress& address) {
  return LookupKey::of_address(static_cast<uint8_t>(address.family), words_of(address));
}

// Compares recalled neighbours. The same address on two ports is two neighbours.
bool before(const KeptNeighbour& a, const KeptNeighbour& b) {
  if (a.family != b.family) return a.family < b.family;
  const int order = std::memcmp(a.address, b.address, sizeof a.address);
  return order != 0 ? order < 0 : a.port < b.port;
}

}  // namespace

const char* name(NeighbourState state) {
  switch (state) {
    case NeighbourState::unused:
      return "unused";
    case NeighbourState::incomplete:
      return "incomplete";
    case NeighbourState::reachable:
      return "reachable";
    case NeighbourState::probe:
      return "probe";
  }
  TIDEGATE_UNREACHABLE("every state of a neighbour has a name");
}

Neighbours::Neighbours(std::vector<PortIdentity> ports, NeighbourBoard* board)
    : ports_(std::move(ports)),
      board_(board),
      slots_(kMaxNeighbours),
      hops_(kMaxNeighbours),
      set_(std::make_shared<const NeighbourSet>(std::vector<NeighbourTarget>{})) {}

void Neighbours::set_targets(std::shared_ptr<const NeighbourSet> set, uint32_t now_ms) {
  if (set == set_) return;
  ++sets_;
  for (const NeighbourTarget& target : set->targets) {
    Slot& slot = slots_[index_of(target.id)];
    const bool same =
        slot.state != NeighbourState::unused && slot.address == target.address && slot.port == target.port;
    if (!same) {
      slot = Slot{};
      slot.address = target.address;
      slot.port = target.port;
      const KeptNeighbour* known = recalled(target);
      if (known != nullptr) slot.mac = Mac::from(known->mac);
      set_state(slot, known != nullptr ? NeighbourState::probe : NeighbourState::incomplete, now_ms);
      tell(slot, false);
    }
    slot.set = sets_;
  }
  for (const NeighbourTarget& target : set_->targets) {
    Slot& slot = slots_[index_of(target.id)];
    if (slot.set == sets_ || slot.state == NeighbourState::unused) continue;
    slot = Slot{};
    set_hop(index_of(target.id), NextHop{});
    tell(slot, false);
  }
  set_ = std::move(set);
  next_ = 0;
  recalled_ = {};
}

void Neighbours::recall(const KeptNeighbour* records, uint32_t now_ms) {
  for (size_t id = 0; id < kMaxNeighbours; ++id) {
    if (records[id].is_whole() && now_ms - records[id].learned_ms <= kKeptMs) recalled_.push_back(records[id]);
  }
  std::sort(recalled_.begin(), recalled_.end(), before);
}

const KeptNeighbour* Neighbours::recalled(const NeighbourTarget& target) const {
  KeptNeighbour wanted;
  wanted.family = static_cast<uint8_t>(target.address.family);
  wanted.port = target.port;
  std::copy(target.address.bytes.begin(), target.address.bytes.end(), wanted.address);
  const auto found = std::lower_bound(recalled_.begin(), recalled_.end(), wanted, before);
  return found == recalled_.end() || before(wanted, *found) ? nullptr : &*found;
}

void Neighbours::write_kept(const Slot& slot, uint32_t now_ms) {
  KeptNeighbour record;
  record.learned_ms = now_ms;
  record.port = slot.port;
  record.family = static_cast<uint8_t>(slot.address.family);
  std::copy(slot.mac.bytes.begin(), slot.mac.bytes.end(), record.mac);
  std::copy(slot.address.bytes.begin(), slot.address.bytes.end(), record.address);
  record.check = record.expected_check();
  kept_[&slot - slots_.data()] = record;
}

void Neighbours::set_ports(std::vector<PortIdentity> ports) {
  ports_ = std::move(ports);
  for (const NeighbourTarget& target : set_->targets) update_hop(slots_[index_of(target.id)]);
}

void Neighbours::ask_again(uint32_t now_ms) {
  for (const NeighbourTarget& target : set_->targets) {
    Slot& slot = slots_[index_of(target.id)];
    if (slot.state == NeighbourState::incomplete) set_state(slot, NeighbourState::incomplete, now_ms);
  }
}

std::optional<size_t> Neighbours::list(size_t from, size_t most, std::vector<NeighbourView>& out) const {
  const std::vector<NeighbourTarget>& targets = set_->targets;
  const size_t end = from >= targets.size() ? targets.size() : from + std::min(most, targets.size() - from);
  for (; from < end; ++from) {
    const Slot& slot = slots_[index_of(targets[from].id)];
    out.push_back({slot.address, slot.mac, slot.port, slot.state});
  }
  return from < targets.size() ? std::optional(from) : std::nullopt;
}

void Neighbours::tell(const Slot& slot, bool silent) {
  if (board_ != nullptr) board_->tell(NeighbourId(&slot - slots_.data()), silent);
}

Neighbours::Slot* Neighbours::find(const IpAddress& address) {
  const uint32_t index = set_->id_of.find(key_of(address));
  return index == LookupTable::kAbsent ? nullptr : &slots_[index];
}

void Neighbours::set_state(Slot& slot, NeighbourState state, uint32_t due_ms) {
  slot.state = state;
  slot.asked = 0;
  slot.due_ms = due_ms;
  update_hop(slot);
}

void Neighbours::update_hop(const Slot& slot) {
  NextHop hop;
  std::memcpy(hop.ethernet_addresses, slot.mac.bytes.data(), 6);
  std::memcpy(hop.ethernet_addresses + 6, ports_[slot.port].mac.bytes.data(), 6);
  hop.port = slot.port;
  hop.usable = slot.state == NeighbourState::reachable || slot.state == NeighbourState::probe;
  set_hop(static_cast<size_t>(&slot - slots_.data()), hop);
}

void Neighbours::set_hop(size_t index, const NextHop& hop) {
  resolved_ += size_t{hop.usable};
  resolved_ -= size_t{hops_[index].usable};
  hops_[index] = hop;
}

Learned Neighbours::learn(const IpAddress& address, const Mac& mac, uint32_t now_ms) {
  Slot* slot = find(address);
  if (slot == nullptr) return Learned::unknown;
  const bool asked_everybody = slot->asked > (slot->state == NeighbourState::probe ? kUnicastProbes : 0u);
  const bool expected = slot->state == NeighbourState::incomplete || mac == slot->mac ||
                        (slot->state == NeighbourState::probe && asked_everybody);
  if (!expected) {
    if (slot->state == NeighbourState::reachable) set_state(*slot, NeighbourState::probe, now_ms);
    if (slot->asked < kUnicastProbes) {
      slot->asked = kUnicastProbes;  // the next request goes to everybody, immediately
      slot->due_ms = now_ms;
    }
    return Learned::expected;
  }
  slot->mac = mac;
  // The time differs by slot, so that the backends of a rack are not all asked in the same millisecond.
  const uint32_t jitter_ms = static_cast<uint32_t>(mix64(index_of(NeighbourId(slot - slots_.data())) + 1) % 4'096);
  set_state(*slot, NeighbourState::reachable, now_ms + kReachableMs - jitter_ms);
  if (kept_ != nullptr) write_kept(*slot, now_ms);
  tell(*slot, false);
  return Learned::expected;
}

Mac Neighbours::mac_of(const IpAddress& address) const {
  const uint32_t index = set_->id_of.find(key_of(address));
  if (index == LookupTable::kAbsent || !hops_[index].usable) return Mac{};
  return slots_[index].mac;
}

OwnIdentity identity_towards(const PortIdentity& identity, const IpAddress& target) {
  OwnIdentity own{identity.mac, IpAddress{}};
  own.address.family = target.family;
  const IpAddress* same_family = nullptr;
  for (const auto& [address, prefix] : identity.addresses) {
    if (address.family != target.family) continue;
    if (Cidr::of(address, prefix).contains(target)) {
      own.address = address;
      return own;
    }
    same_family = &address;
  }
  if (same_family != nullptr) {
    own.address = *same_family;
  } else if (target.is_v6()) {
    own.address = link_local_of(identity.mac);
  }
  return own;  // without an IPv4 address of our own, it asks like an ARP probe, from 0.0.0.0 (RFC 5227 §2.1)
}

void Neighbours::ask(Slot& slot, uint32_t now_ms, FrameSink& sink) {
  const bool unicast = slot.state == NeighbourState::probe && slot.asked < kUnicastProbes;
  uint8_t frame[kMaxNeighbourFrameBytes];
  const size_t bytes = write_request(frame, identity_towards(ports_[slot.port], slot.address), slot.address,
                                     unicast ? &slot.mac : nullptr);
  sink.send(slot.port, frame, bytes);
  if (slot.asked < UINT8_MAX) ++slot.asked;
  if (slot.state == NeighbourState::incomplete && slot.asked == kAsksUntilSilent) tell(slot, true);
  uint32_t wait_ms = kRetransmitMs;
  if (slot.state == NeighbourState::incomplete && slot.asked > kBroadcastProbes) {
    wait_ms = std::min(kRetransmitMs << std::min(slot.asked - kBroadcastProbes, 3u), kSlowestRetryMs);
  }
  slot.due_ms = now_ms + wait_ms;
}

void Neighbours::tick(uint32_t now_ms, size_t most_frames, FrameSink& sink) {
  const std::vector<NeighbourTarget>& targets = set_->targets;
  const size_t most = std::min(targets.size(), kMaxSlotsPerTick);
  size_t sent = 0;
  for (size_t seen = 0; seen < most && sent < most_frames; ++seen) {
    Slot& slot = slots_[index_of(targets[next_].id)];
    next_ = next_ + 1 == targets.size() ? 0 : next_ + 1;
    if (!is_due(slot.due_ms, now_ms)) continue;
    if (slot.state == NeighbourState::reachable) set_state(slot, NeighbourState::probe, now_ms);
    if (slot.state == NeighbourState::probe && slot.asked >= kUnicastProbes + kBroadcastProbes) {
      set_state(slot, NeighbourState::incomplete, now_ms);
    }
    ask(slot, now_ms, sink);
    ++sent;
  }
}

}  // namespace tidegate::l4
