// SPDX-License-Identifier: Apache-2.0
#include "l4/decider.h"

#include <algorithm>
#include <cassert>

#include "l4/stages.h"

namespace tidegate::l4 {
namespace {

// The time of one sweep of the whole flow table. The number of live flows may be this old.
constexpr uint32_t kSweepRoundMs = 4'096;
constexpr size_t kPrefetchAhead = 4;

uint64_t word_of(const Mac& mac) {
  uint8_t eight_bytes[8] = {};
  std::memcpy(eight_bytes, mac.bytes.data(), mac.bytes.size());
  return mac_word(eight_bytes);
}

}  // namespace

Decider::Decider(DeciderConfig config, WorkerCounters& counters)
    : config_(std::move(config)),
      counters_(counters),
      batch_(config_.hasher),
      source_batch_(config_.hasher),
      flows_(config_.flows, config_.kept.flows),
      fragments_(kMaxFragmented),
      neighbours_(config_.ports, config_.board),
      announcer_(config_.ports),
      asker_(config_.ports),
      groups_(config_.ports) {
  set_links();
  set_vlans();
  inherit();
  if (config_.bounds == nullptr) {
    own_bounds_ = std::make_unique<SharedBounds>();
    config_.bounds = own_bounds_.get();
  }
}

// Takes over what the previous process left. Only one worker writes the neighbours, because all workers ask for the
// same ones.
void Decider::inherit() {
  const KeptMemory& kept = config_.kept;
  if (kept.inherited) {
    const ConnTable::Inherited inherited = flows_.take_over(*kept.known_ids, kept.now_ms);
    counters_.flows_inherited.set(inherited.flows);
    counters_.flows_not_inherited.set(inherited.refused);
    counters_.flows_live.set(inherited.flows);
  }
  if (kept.neighbours_inherited) neighbours_.recall(kept.neighbours, kept.now_ms);
  if (config_.announces) neighbours_.keep(kept.neighbours);
}

void Decider::set_links() {
  // not a MAC address: frames of a VLAN are plain packets only after their tags are removed
  constexpr uint64_t kNobody = 1;
  constexpr uint32_t kLinkMtu = 1'500;  // for a port that does not report its own
  own_macs_.clear();
  link_mtus_.clear();
  untagged_macs_.clear();
  for (const PortIdentity& port : config_.ports) {
    own_macs_.push_back(word_of(port.mac));
    link_mtus_.push_back(port.mtu == 0 ? kLinkMtu : port.mtu);
    untagged_macs_.push_back(port.tags.vlan == 0 ? own_macs_.back() : kNobody);
  }
}

void Decider::set_vlans() {
  vlans_of_device_.assign(config_.ports.size(), {});
  for (uint16_t port = 0; port < config_.ports.size(); ++port) {
    const std::optional<uint16_t> by = config_.ports[port].arrives_by;
    if (!by) continue;
    std::vector<uint16_t>& all = vlans_of_device_[*by];
    if (all.empty()) all.push_back(*by);
    all.push_back(port);
  }
  // The outer tag of a frame with two tags may be the only tag of another VLAN.
  for (std::vector<uint16_t>& all : vlans_of_device_) {
    std::stable_sort(all.begin(), all.end(), [&](uint16_t a, uint16_t b) {
      return config_.ports[a].tags.bytes() > config_.ports[b].tags.bytes();
    });
  }
}

void Decider::set_ports(std::vector<PortIdentity> ports) {
  neighbours_.set_ports(ports);
  announcer_.set_ports(ports);
  asker_.set_ports(ports);
  groups_.set_ports(ports);
  config_.ports = std::move(ports);
  set_links();
  set_vlans();
}

void Decider::introduce(uint32_t now_ms) {
  neighbours_.ask_again(now_ms);
  if (!config_.announces) return;
  announcer_.restart(now_ms);
  groups_.restart(now_ms);
}

void Decider::adopt(const ForwardingTables& tables, uint32_t now_ms) {
  for (const std::unique_ptr<const Guard>& guard : tables.guards) {
    if (guard != nullptr && guard->bounds_sources()) sources_.open();
  }
  tells_one_of_ = tables.flow_events;
  neighbours_.set_targets(tables.neighbours, now_ms);
  if (!config_.announces) return;
  announcer_.adopt(tables.local, now_ms);
  asker_.adopt(tables.local, now_ms);
  groups_.adopt(tables.local, now_ms);
}

std::optional<FlowEntry> Decider::flow(uint64_t hash, uint32_t now_ms) {
  const FlowEntry* entry = flows_.find(hash, now_ms);
  if (entry == nullptr) return std::nullopt;
  return *entry;
}

void Decider::tick(uint32_t now_ms, FrameSink& sink) {
  // Membership reports go first. Until they are sent, solicitations for our addresses may not reach us.
  if (config_.announces) counters_.mld_reports.add(groups_.tick(now_ms, sink));
  size_t announced = announcer_.tick(now_ms, Neighbours::kMaxFramesPerTick, sink);
  announced += asker_.tick(now_ms, Neighbours::kMaxFramesPerTick - announced, sink);
  neighbours_.tick(now_ms, Neighbours::kMaxFramesPerTick - announced, sink);
  if (config_.probes != nullptr && config_.announces) {
    config_.probes->send_due(neighbours_, config_.ports, Neighbours::kMaxFramesPerTick, sink);
  }
  const uint64_t elapsed_ms = now_ms - swept_ms_;
  swept_ms_ = now_ms;
  flows_.sweep(elapsed_ms * flows_.bucket_count() / kSweepRoundMs + 1, now_ms);
  fragments_.sweep(elapsed_ms, now_ms);
  counters_.fragmented.set(fragments_.live());
  counters_.flows_live.set(flows_.live());
  counters_.flows_evicted.set(flows_.evicted());
  counters_.sources_forgotten.set(sources_.forgotten());
  counters_.neighbours_resolved.set(neighbours_.resolved());
  counters_.neighbours.set(neighbours_.targets());
}

namespace {

// Consecutive packets that were forwarded for one service. Packets of one service often follow each other.
struct ServiceRun {
  ServiceId service = kNoService;
  uint64_t packets = 0, bytes = 0;

  [[gnu::always_inline]] void add(ServiceId of, uint64_t more_bytes, WorkerCounters& counters) {
    if (of != service) {
      count(counters);
      *this = {of, 0, 0};
    }
    ++packets;
    bytes += more_bytes;
  }
  void count(WorkerCounters& counters) const {
    if (packets != 0) counters.services[index_of(service)].forwarded.add(packets, bytes);
  }
};

}  // namespace

// Returns true if all `count` frames are forwarded by one port. Counts every other result.
template <bool Tunnels>
[[gnu::always_inline]] inline bool Decider::act(Frame* frames, FrameOutcome* outcomes, size_t count, uint32_t now_ms,
                                                uint16_t& port_of_all) {
  size_t forwarded = 0;
  uint16_t bits_of_all = UINT16_MAX, bits_of_any = 0;  // over the ports by which the frames leave
  ServiceRun run;
  for (size_t i = 0; i < packet_count_; ++i) {
    const ServicePacket& packet = packets_[i];
    Frame& frame = frames[packet.frame];
    FrameOutcome& outcome = outcomes[packet.frame];
    // Assigned field by field. A returned FrameOutcome would be written as bytes and copied as words, and the copy
    // would wait for the writes.
    outcome.share = false;
    if (!Tunnels || packet.action == nullptr) {
      outcome.reason = address(packet.backend, *packet.hop, frame, outcome.port);
      outcome.verdict = outcome.reason == DropReason::none ? FrameVerdict::forward : FrameVerdict::drop;
    } else {
      send_through_tunnel(*packet.action, packet.second, hashes_[i], *packet.hop, frame, outcome, now_ms);
    }
    if (outcome.verdict != FrameVerdict::forward) [[unlikely]] {
      if (packet.first_fragment && packet.handed_over) outcome = {FrameVerdict::hand_over, DropReason::none, 0, false};
      if (packet.refused != DropReason::none) settle_refused(packet, frame, outcome, now_ms);
      continue;
    }
    bits_of_all &= outcome.port;
    bits_of_any |= outcome.port;
    ++forwarded;
    counters_.backends.forwarded[index_of(packet.backend)].add(1, frame.bytes);
    run.add(packet.service->id, frame.bytes, counters_);
  }
  run.count(counters_);
  port_of_all = bits_of_all;
  if (forwarded == count) return bits_of_all == bits_of_any;
  count_fates(frames, outcomes, count, now_ms);
  return false;
}

template <bool Tunnels>
bool Decider::choose_and_act(const ForwardingTables& tables, Frame* frames, FrameOutcome* outcomes, size_t count,
                             uint32_t now_ms, uint16_t& port_of_all) {
  for (size_t i = 0; i < packet_count_; ++i) {
    choose<Tunnels>(tables, packets_[i], hashes_[i], frames[packets_[i].frame], now_ms);
  }
  for (size_t i = 0; i < follower_count_; ++i) {
    const uint16_t index = followers_[i];
    outcomes[index] = settle_follower(tables, frames[index], views_[index], now_ms);
  }
  return act<Tunnels>(frames, outcomes, count, now_ms, port_of_all);
}

[[gnu::always_inline]] inline std::optional<uint16_t> Decider::run_stages(const ForwardingTables& tables, Frame* frames,
                                                                          FrameOutcome* outcomes, size_t count,
                                                                          uint32_t now_ms) {
  packet_count_ = follower_count_ = 0;
  moved_ = false;
  asked_service_ = nullptr;
  for (size_t i = 0; i < std::min(count, kPrefetchAhead); ++i) __builtin_prefetch(frames[i].data);
  for (size_t i = 0; i < count; ++i) {
    if (i + kPrefetchAhead < count) __builtin_prefetch(frames[i + kPrefetchAhead].data);
    const auto index = static_cast<uint16_t>(i);
    if (!take_plain(tables, frames[i], index, untagged_macs_[frames[i].port]))
      classify(tables, frames[i], index, outcomes[i], now_ms);
  }
  batch_.finish([this](uint16_t packet, uint64_t hash) {
    hashes_[packet] = hash;
    flows_.prefetch(hash);
  });
  if (!tables.guards.empty()) guard(tables, frames, outcomes, now_ms);
  uint16_t port_of_all = 0;
  const bool by_one_port = tables.tunnels.empty()
                               ? choose_and_act<false>(tables, frames, outcomes, count, now_ms, port_of_all)
                               : choose_and_act<true>(tables, frames, outcomes, count, now_ms, port_of_all);
  if (by_one_port) return port_of_all;
  return std::nullopt;
}

std::optional<uint16_t> Decider::decide(const ForwardingTables& tables, Frame* frames, FrameOutcome* outcomes,
                                        size_t count, uint32_t now_ms) {
  assert(count <= kBurst);
  if (observer_ != nullptr) [[unlikely]]
    return decide_observed(tables, frames, outcomes, count, now_ms);
  return run_stages(tables, frames, outcomes, count, now_ms);
}

[[gnu::noinline]] std::optional<uint16_t> Decider::decide_observed(const ForwardingTables& tables, Frame* frames,
                                                                   FrameOutcome* outcomes, size_t count,
                                                                   uint32_t now_ms) {
  observer_->before(frames, count, now_ms);
  const std::optional<uint16_t> port_of_all = run_stages(tables, frames, outcomes, count, now_ms);
  std::array<Fate, kBurst> fates;
  for (size_t i = 0; i < count; ++i) fates[i] = {&outcomes[i], kNoBackend, kNoService};
  for (size_t i = 0; i < packet_count_; ++i) {
    const ServicePacket& packet = packets_[i];
    fates[packet.frame].backend = packet.backend;
    fates[packet.frame].service = packet.service->id;
  }
  observer_->after(frames, fates.data(), count);
  return port_of_all;
}

void Decider::preload(const FlowEntry& flow, uint32_t now_ms) {
  FlowEntry* entry = flows_.find(flow.hash, now_ms);
  if (entry == nullptr) entry = flows_.insert(flow.hash, flow.backend, flow.expires_ms - now_ms, now_ms);
  if (entry != nullptr) *entry = flow;
}

void Decider::preload(const NeighbourView& neighbour, uint32_t now_ms) {
  if (!neighbour.mac.is_zero()) neighbours_.learn(neighbour.address, neighbour.mac, now_ms);
}

void Decider::count_fates(const Frame* frames, FrameOutcome* outcomes, size_t count, uint32_t now_ms) {
  for (size_t i = 0; i < count; ++i) {
    FrameOutcome& outcome = outcomes[i];
    if (outcome.verdict == FrameVerdict::punt && !config_.punt_tap) outcome.verdict = FrameVerdict::drop;
    if (frames[i].learn_only) continue;  // the worker that received it has counted it
    if (outcome.verdict == FrameVerdict::drop) {
      counters_.drop(outcome.reason, 1, frames[i].bytes);
      dropped_.record(frames[i], outcome.reason, now_ms);
    }
    if (outcome.verdict == FrameVerdict::consume) counters_.consumed_packets.add();
  }
}

}  // namespace tidegate::l4
