// SPDX-License-Identifier: Apache-2.0
// One worker's Decider on a small edge, whose neighbours are known. Frames are in their own buffers, with room before
// them as in a packet buffer.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "l4/decider.h"
#include "tests/unit/l4/edge.h"

namespace tidegate::l4::testing {

struct Decided {
  FrameOutcome outcome;
  Bytes frame;
  Mac to() const { return Mac::from(frame.data()); }
};

inline Mac mac_of_backend(size_t index) { return {{0x02, 0, 0, 0, 0, static_cast<uint8_t>(0x11 + index)}}; }

class Harness final : public FrameSink {
 public:
  static constexpr size_t kRoom = 128;

  explicit Harness(DeciderConfig config = {}, uint32_t port_mtu = 1'500, PortTags tags = {}) : port_tags(tags) {
    config.hasher = FlowHasher(kFlowKey);
    PortIdentity port{kOurMac, {{ip("10.0.0.2"), 24}, {ip("fd00::2"), 64}}};
    port.mtu = port_mtu;
    port.tags = tags;
    config.ports = {port};
    config.flows = 4'096;
    decider = std::make_unique<Decider>(std::move(config), *counters);
    publish();
    for (size_t i = 0; i < 3; ++i) {
      for (const std::string prefix : {"10.0.0.1", "fd00::1"})
        tell(ip(prefix + std::to_string(i + 1)), mac_of_backend(i));
    }
  }

  // A station announces where an address is.
  void tell(const IpAddress& address, const Mac& mac) {
    if (address.is_v4()) {
      decide(with_tags(arp(2, mac, address.to_string(), kOurMac, "10.0.0.2", kOurMac)));
      return;
    }
    Bytes body = {0x60, 0, 0, 0};
    append_address(body, address);
    append(body, {2, 1});
    body.insert(body.end(), mac.bytes.begin(), mac.bytes.end());
    decide(with_tags(ethernet(kEtherTypeIp6, icmp6_packet(address, ip("fd00::2"), 136, body, 255), kOurMac, mac)));
  }

  // The frame as it comes over the port's link.
  Bytes with_tags(Bytes frame) const {
    const auto tag = [&](uint16_t type, uint16_t vlan) {
      const Bytes four = {static_cast<uint8_t>(type >> 8), static_cast<uint8_t>(type),
                          static_cast<uint8_t>(0x60 | vlan >> 8), static_cast<uint8_t>(vlan)};
      frame.insert(frame.begin() + 12, four.begin(), four.end());
    };
    if (port_tags.vlan != 0) tag(kEtherTypeVlan, port_tags.vlan);
    if (port_tags.outer != 0) tag(kEtherTypeQinQ, port_tags.outer);
    return frame;
  }

  void publish() {
    tables = edge.tables();
    decider->adopt(*tables, now_ms);
  }

  // `asked`: how many workers have already looked for the frame's flow.
  Decided decide(const Bytes& frame, uint8_t asked = 0) {
    std::vector<uint8_t> buffer(kRoom + frame.size() + 64);
    std::copy(frame.begin(), frame.end(), buffer.begin() + kRoom);
    Frame view;
    view.data = buffer.data() + kRoom;
    view.bytes = static_cast<uint32_t>(frame.size());
    view.capacity = static_cast<uint32_t>(frame.size() + 64);
    view.asked = asked;
    view.headroom = kRoom;
    Decided decided;
    decider->decide(*tables, &view, &decided.outcome, 1, now_ms);
    decided.frame.assign(view.data, view.data + view.bytes);
    return decided;
  }

  // The index of the backend that the frame went to, or -1.
  static int backend_of(const Decided& decided) {
    if (decided.outcome.verdict != FrameVerdict::forward && decided.outcome.verdict != FrameVerdict::relay) return -1;
    for (size_t i = 0; i < 3; ++i) {
      if (decided.to() == mac_of_backend(i)) return static_cast<int>(i);
    }
    return -2;
  }

  void send(uint16_t, const uint8_t* frame, size_t bytes) override { sent.emplace_back(frame, frame + bytes); }

  PortTags port_tags;
  Edge edge;
  std::shared_ptr<const ForwardingTables> tables;
  std::unique_ptr<WorkerCounters> counters = std::make_unique<WorkerCounters>();
  std::unique_ptr<Decider> decider;
  std::vector<Bytes> sent;
  uint32_t now_ms = 1'000;
};

}  // namespace tidegate::l4::testing
