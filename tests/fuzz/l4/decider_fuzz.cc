// SPDX-License-Identifier: Apache-2.0
// A sequence of frames through a whole Decider, in every mode of forwarding. Each record has a length of two bytes, one
// byte of passing time, and the frame; each frame ends where its heap buffer ends. Every frame must get a verdict of
// the table, and the packet for a backend must be the one that came in. One more Decider has client lists, limits, and
// RST for unknown flows.
#include <algorithm>
#include <cstdlib>
#include <memory>
#include <vector>

#include "conf/model.h"
#include "conf/model/service.h"
#include "l4/decider.h"
#include "tests/unit/l4/edge.h"

namespace {

using namespace tidegate;
using namespace tidegate::l4;

class Discard final : public FrameSink {
 public:
  void send(uint16_t, const uint8_t*, size_t bytes) override {
    if (bytes < 42 || bytes > kMaxMldFrameBytes) abort();
  }
};

constexpr size_t kRoom = 128;  // before a frame, as in a packet buffer

// One Decider for each mode and all inputs: the flows and neighbours of one input are the history of the next.
struct Harness {
  Forwarding mode;
  testing::Edge edge;
  std::shared_ptr<const ForwardingTables> tables;
  WorkerCounters counters;
  Decider decider;
  uint32_t now_ms = 0;
  void guard();

  static DeciderConfig config() {
    DeciderConfig config;
    config.hasher = FlowHasher(testing::kFlowKey);
    config.ports = {PortIdentity{testing::kOurMac, {{testing::ip("10.0.0.2"), 24}, {testing::ip("fd00::2"), 64}}}};
    config.ports[0].mtu = 1'500;
    config.flows = 64;
    return config;
  }
  explicit Harness(Forwarding forwarding, bool guarded = false) : mode(forwarding), decider(config(), counters) {
    for (Service& service : edge.model.services) {
      service.forwarding = mode;
      service.vni = 7;
    }
    if (guarded) guard();
    tables = edge.tables();
    decider.adopt(*tables, 0);
  }
};

// The limits are small: a few packets reach them.
void Harness::guard() {
  Acl denied, allowed;
  denied.name = "denied";
  denied.networks = {*Cidr::parse("192.0.2.0/25"), *Cidr::parse("2001:db8:8000::/33"), *Cidr::parse("10.0.0.0/9")};
  allowed.name = "allowed";
  allowed.networks = {*Cidr::parse("0.0.0.0/1"), *Cidr::parse("192.0.2.0/24"), *Cidr::parse("2000::/3")};
  edge.model.acls = {denied, allowed};
  for (Service& service : edge.model.services) {
    service.deny = {0};
    service.allow = {1};
    service.limits = {30, 40, 10, 20, 5, 10, 2, 4, 24, 48};
    service.reset_unknown = service.protocol == Protocol::tcp;
  }
}

// The packet within a tunnelled frame begins after the outer headers.
size_t outer_bytes(const Harness& harness, const uint8_t* frame) {
  const size_t ip_bytes = frame[12] == 0x08 ? 20 : 40;
  switch (harness.mode) {
    case Forwarding::l2dsr:
      return 0;
    case Forwarding::ipip:
      return ip_bytes;
    case Forwarding::gue:
      return ip_bytes + 12;
    case Forwarding::vxlan:
      return ip_bytes + 30;
  }
  abort();
}

void decide_one(Harness& harness, const uint8_t* bytes, size_t size) {
  const std::unique_ptr<uint8_t[]> buffer(new uint8_t[kRoom + size]);
  std::copy(bytes, bytes + size, buffer.get() + kRoom);
  Frame frame;
  frame.data = buffer.get() + kRoom;
  frame.bytes = frame.capacity = static_cast<uint32_t>(size);
  frame.headroom = kRoom;
  FrameOutcome outcome;
  harness.decider.decide(*harness.tables, &frame, &outcome, 1, harness.now_ms);
  if (outcome.verdict == FrameVerdict::drop &&
      (outcome.reason == DropReason::none || outcome.reason >= DropReason::count_)) {
    abort();
  }
  if (frame.data != buffer.get() + kRoom && !harness.decider.moved()) abort();
  if (outcome.verdict != FrameVerdict::forward && outcome.verdict != FrameVerdict::relay) return;
  const size_t tag = bytes[12] == 0x81 ? kTagBytes : 0;  // a priority tag was removed
  const size_t before = kEthernetBytes + outer_bytes(harness, frame.data);
  const uint8_t* packet = bytes + kEthernetBytes + tag;
  const size_t inner = frame.bytes - before;
  if (inner > size - kEthernetBytes - tag || !std::equal(packet, packet + inner, frame.data + before)) abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static Harness harnesses[] = {Harness(Forwarding::l2dsr), Harness(Forwarding::ipip), Harness(Forwarding::gue),
                                Harness(Forwarding::vxlan), Harness(Forwarding::l2dsr, true)};
  static Discard sink;
  while (size >= 3) {
    const size_t frame_bytes = std::min<size_t>(load_be16(data), size - 3);
    for (Harness& harness : harnesses) {
      harness.now_ms += uint32_t{data[2]} * 64;
      decide_one(harness, data + 3, frame_bytes);
      harness.decider.tick(harness.now_ms, sink);
    }
    data += 3 + frame_bytes;
    size -= 3 + frame_bytes;
  }
  return 0;
}
