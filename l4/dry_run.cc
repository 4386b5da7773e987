// SPDX-License-Identifier: Apache-2.0
#include "l4/dry_run.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "conf/model.h"
#include "conf/model/service.h"
#include "l4/icmp.h"
#include "l4/observer.h"

namespace tidegate::l4 {
namespace {

using nlohmann::json;

constexpr size_t kRoomBefore = 128, kRoomBehind = 256;  // as in a packet buffer

std::string endpoint_text(const AddressWords& address, uint8_t family, uint16_t port_be) {
  return Endpoint{address_of(address, family), ntohs(port_be)}.to_string();
}

// The flow to which a frame belongs, or that it is about.
std::optional<FlowTuple> flow_of(const Frame& frame) {
  PacketView view;
  if (!read_observed(frame, view)) return std::nullopt;
  if (view.kind == PacketKind::transport) {
    return FlowTuple{view.family, view.protocol,   view.source_port_be, view.destination_port_be,
                     view.source, view.destination};
  }
  // A quoted packet is read only from a whole frame without tags.
  FlowTuple quoted;
  if (view.kind != PacketKind::icmp || parse_frame(frame.data, frame.bytes, view) != DropReason::none) {
    return std::nullopt;
  }
  if (read_icmp_error(frame.data, view, quoted) != DropReason::none) return std::nullopt;
  return quoted;
}

// Remembers the fate of the frame in a burst of one frame.
class LastFate final : public FrameObserver {
 public:
  void before(const Frame*, size_t, uint32_t) override {}
  void after(const Frame*, const Fate* fates, size_t) override { last = fates[0]; }
  Fate last;
};

class DryRun {
 public:
  DryRun(const DryWorld& world, const BackendIds& backends, const DryQuestion& question)
      : world_(world), question_(question), decider_(world.config, counters_) {
    backends.for_each([&](const BackendKey& key, BackendId id) {
      if (names_.size() <= index_of(id)) names_.resize(index_of(id) + 1);
      names_[index_of(id)] = key.first + "/" + key.second;
    });
    decider_.adopt(*world_.tables, world_.now_ms);
    for (const NeighbourView& each : world_.neighbours) decider_.preload(each, world_.now_ms);
    decider_.observe(&fate_);
  }

  json run(const std::vector<CaptureRecord>& frames) {
    preload_flows(frames);
    json out = json::array();
    for (size_t i = 0; i < frames.size(); ++i) {
      out.push_back(explain_one(frames[i], frames.front().time_ns));
      out.back()["frame"] = i + 1;
    }
    return out;
  }

 private:
  Frame frame_of(const CaptureRecord& record) {
    buffer_.assign(kRoomBefore + record.bytes.size() + kRoomBehind, 0);
    std::copy(record.bytes.begin(), record.bytes.end(), buffer_.begin() + kRoomBefore);
    Frame frame;
    frame.data = buffer_.data() + kRoomBefore;
    frame.bytes = static_cast<uint32_t>(record.bytes.size());
    frame.capacity = static_cast<uint32_t>(record.bytes.size() + kRoomBehind);
    frame.headroom = kRoomBefore;
    frame.port = question_.port;
    const Mac& ours = world_.config.ports[question_.port].mac;
    if (question_.to_us && frame.bytes >= kEthernetBytes && !Mac::from(frame.data).is_multicast())
      std::copy(ours.bytes.begin(), ours.bytes.end(), frame.data);
    return frame;
  }

  void preload_flows(const std::vector<CaptureRecord>& frames) {
    std::vector<uint64_t> hashes;
    for (const CaptureRecord& record : frames) {
      const std::optional<FlowTuple> flow = flow_of(frame_of(record));
      if (flow) hashes.push_back(world_.config.hasher.tuple(*flow));
    }
    std::sort(hashes.begin(), hashes.end());
    hashes.erase(std::unique(hashes.begin(), hashes.end()), hashes.end());
    for (const FlowEntry& flow : world_.find_flows(hashes)) decider_.preload(flow, world_.now_ms);
  }

  json explain_one(const CaptureRecord& record, uint64_t first_ns) {
    if (record.whole_bytes > record.bytes.size()) {
      return {{"verdict", "unknown"}, {"why", "the capture holds only the beginning of the frame"}};
    }
    Frame frame = frame_of(record);
    const std::optional<FlowTuple> flow = flow_of(frame);
    const auto passed_ms =
        static_cast<uint32_t>(record.time_ns > first_ns ? (record.time_ns - first_ns) / 1'000'000 : 0);
    const uint32_t now_ms = world_.now_ms + passed_ms;
    const bool known = flow && decider_.flow(world_.config.hasher.tuple(*flow), now_ms);
    FrameOutcome outcome;
    decider_.decide(*world_.tables, &frame, &outcome, 1, now_ms);
    json out = {{"verdict", name(outcome.verdict)}};
    if (outcome.verdict == FrameVerdict::drop) {
      out["reason"] = name(outcome.reason);
      out["why"] = sentence(outcome.reason);
    }
    if (flow) add_flow(*flow, known, out);
    if (const BackendId backend = fate_.last.backend; index_of(backend) < names_.size()) {
      out["backend"] = names_[index_of(backend)];
    }
    if (outcome.verdict == FrameVerdict::forward || outcome.verdict == FrameVerdict::relay ||
        outcome.verdict == FrameVerdict::answer) {
      out["out"] = {{"port", outcome.port}, {"to", Mac::from(frame.data).to_string()}, {"bytes", frame.bytes}};
    }
    return out;
  }

  void add_flow(const FlowTuple& flow, bool known, json& out) const {
    out["client"] = endpoint_text(flow.client, flow.family, flow.client_port_be);
    out["vip"] = endpoint_text(flow.vip, flow.family, flow.service_port_be);
    out["protocol"] = flow.protocol == kProtocolTcp ? "tcp" : "udp";
    const ServiceEntry* service =
        world_.tables->find_service(flow.family, flow.vip, flow.protocol, flow.service_port_be);
    if (service == nullptr) return;
    out["service"] = world_.tables->snapshot->model->services[service->service].name;
    if (service->tracking) out["flow"] = known ? "known" : "new";
  }

  const DryWorld& world_;
  const DryQuestion& question_;
  WorkerCounters counters_;
  Decider decider_;
  LastFate fate_;
  std::vector<std::string> names_;  // by BackendId
  std::vector<uint8_t> buffer_;
};

}  // namespace

json explain_frames(const DryWorld& world, const BackendIds& backends, const std::vector<CaptureRecord>& frames,
                    const DryQuestion& question) {
  return DryRun(world, backends, question).run(frames);
}

const char* name(FrameVerdict verdict) {
  switch (verdict) {
    case FrameVerdict::drop:
      return "drop";
    case FrameVerdict::forward:
      return "forward";
    case FrameVerdict::relay:
      return "relay";
    case FrameVerdict::answer:
      return "answer";
    case FrameVerdict::punt:
      return "punt";
    case FrameVerdict::consume:
      return "consume";
    case FrameVerdict::hand_over:
      return "hand_over";
  }
  return "?";
}

}  // namespace tidegate::l4
