// SPDX-License-Identifier: Apache-2.0
// A Decider over the edge of edge.h, whose three backends have announced their MAC addresses.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "l4/decider.h"
#include "tests/unit/l4/edge.h"
#include "tests/unit/l4/harness.h"

namespace tidegate::l4::testing {

class DeciderTest : public ::testing::Test, public FrameSink {
 protected:
  DeciderTest() { restart({}); }

  void restart(DeciderConfig config) {
    config.hasher = FlowHasher(kFlowKey);
    config.ports = {PortIdentity{kOurMac, {{ip("10.0.0.2"), 24}, {ip("fd00::2"), 64}}}};
    config.flows = 4'096;
    counters_ = std::make_unique<WorkerCounters>();
    decider_ = std::make_unique<Decider>(std::move(config), *counters_);
    publish();
    for (size_t i = 0; i < 3; ++i) {
      for (const std::string prefix : {"10.0.0.1", "fd00::1"})
        tell(ip(prefix + std::to_string(i + 1)), mac_of_backend(i));
    }
  }

  // A station announces where an address is.
  void tell(const IpAddress& address, const Mac& mac) {
    if (address.is_v4()) {
      decide(arp(2, mac, address.to_string(), kOurMac, "10.0.0.2", kOurMac));
      return;
    }
    Bytes body = {0x60, 0, 0, 0};
    append_address(body, address);
    append(body, {2, 1});
    body.insert(body.end(), mac.bytes.begin(), mac.bytes.end());
    decide(ethernet(kEtherTypeIp6, icmp6_packet(address, ip("fd00::2"), 136, body, 255), kOurMac, mac));
  }

  void publish() {
    tables_ = edge_.tables();
    decider_->adopt(*tables_, now_ms_);
  }

  Decided decide(const Bytes& frame) {
    Bytes buffer = frame;
    buffer.resize(frame.size() + 64);
    Frame view;
    view.data = buffer.data();
    view.bytes = static_cast<uint32_t>(frame.size());
    view.capacity = static_cast<uint32_t>(buffer.size());
    Decided decided;
    decider_->decide(*tables_, &view, &decided.outcome, 1, now_ms_);
    buffer.resize(view.bytes);
    decided.frame = buffer;
    return decided;
  }

  // The backend that a frame goes to, or -1.
  int backend_of(const Bytes& frame) {
    const Decided decided = decide(frame);
    if (decided.outcome.verdict != FrameVerdict::forward && decided.outcome.verdict != FrameVerdict::relay) return -1;
    for (size_t i = 0; i < 3; ++i) {
      if (decided.to() == mac_of_backend(i)) return static_cast<int>(i);
    }
    return -2;
  }
  int tcp_backend(uint16_t port, uint8_t flags) {
    return backend_of(tcp_frame("192.0.2.7", port, "10.0.0.100", 80, flags));
  }
  DropReason reason_for(const Bytes& frame) {
    const Decided decided = decide(frame);
    return decided.outcome.verdict == FrameVerdict::drop ? decided.outcome.reason : DropReason::none;
  }

  void send(uint16_t, const uint8_t* frame, size_t bytes) override { sent_.emplace_back(frame, frame + bytes); }

  Edge edge_;
  std::shared_ptr<const ForwardingTables> tables_;
  std::unique_ptr<WorkerCounters> counters_;
  std::unique_ptr<Decider> decider_;
  std::vector<Bytes> sent_;
  uint32_t now_ms_ = 1'000;
};

}  // namespace tidegate::l4::testing
