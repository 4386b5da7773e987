// SPDX-License-Identifier: Apache-2.0
// DryRun: what would become of frames of a capture file, told by a Decider that has no device. It has the tables of the
// forwarder, and the flows and neighbours that the forwarder holds; its bounds are full. Nothing is sent, and the
// forwarder's own workers notice nothing.
#pragma once

#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <vector>

#include "l4/decider.h"
#include "l4/pcap_file.h"

namespace tidegate::l4 {

// What a dry run takes from a running forwarder.
struct DryWorld {
  std::shared_ptr<const ForwardingTables> tables;
  DeciderConfig config;  // hasher, ports, punt; one worker, and no board of the forwarder
  std::vector<NeighbourView> neighbours;
  // The flows with these hashes, as their workers have them now; absent ones are left out.
  std::function<std::vector<FlowEntry>(const std::vector<uint64_t>& hashes)> find_flows;
  uint32_t now_ms = 0;
};

struct DryQuestion {
  uint16_t port = 0;   // by which the frames come in
  bool to_us = false;  // their destination MAC addresses are taken to be ours, unless they are multicast
};

// An array with an object for each frame: {"frame" (from 1), "verdict", "reason", "why", "service", "backend", "flow",
// "client", "vip", "out"}. Members that say nothing are left out.
nlohmann::json explain_frames(const DryWorld& world, const BackendIds& backends,
                              const std::vector<CaptureRecord>& frames, const DryQuestion& question);

const char* name(Verdict verdict);

}  // namespace tidegate::l4
