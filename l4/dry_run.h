// SPDX-License-Identifier: Apache-2.0
// DryRun: decides the fate of the frames of a capture file, without effect. A Decider without a device decides. It has
// the forwarder's tables, flows and neighbours, and its token buckets are full. Nothing is sent, and the forwarder's
// workers are not affected.
#pragma once

#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <vector>

#include "l4/decider.h"
#include "l4/pcap_file.h"

namespace tidegate::l4 {

// The parts of a running forwarder that a dry run uses.
struct DryWorld {
  std::shared_ptr<const ForwardingTables> tables;
  DeciderConfig config;  // hasher, ports, punt; one worker; no board of the forwarder
  std::vector<NeighbourView> neighbours;
  // The flows with these hashes, as their workers have them now. Unknown ones are left out.
  std::function<std::vector<FlowEntry>(const std::vector<uint64_t>& hashes)> find_flows;
  uint32_t now_ms = 0;
};

struct DryQuestion {
  uint16_t port = 0;   // the port by which the frames come in
  bool to_us = false;  // their destination MAC addresses count as ours, unless they are multicast
};

// An array with an object for each frame: {"frame" (from 1), "verdict", "reason", "why", "service", "backend", "flow",
// "client", "vip", "out"}. Members without a value are left out.
nlohmann::json explain_frames(const DryWorld& world, const BackendIds& backends,
                              const std::vector<CaptureRecord>& frames, const DryQuestion& question);

const char* name(FrameVerdict verdict);

}  // namespace tidegate::l4
