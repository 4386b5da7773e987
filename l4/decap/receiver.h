// SPDX-License-Identifier: Apache-2.0
// Receiver: one socket that gets tunnelled datagrams. It unwraps datagrams of allowed forwarders, and gives the inner
// packets to the TUN device. The kernel has already joined outer fragments and checked that the datagram is for this
// host.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/event_loop.h"
#include "core/fd.h"
#include "core/ip.h"
#include "core/metrics.h"
#include "core/result.h"
#include "l4/decap/hand_on.h"
#include "l4/decap/tun_device.h"
#include "l4/decap/unwrap.h"

namespace tidegate::l4 {

struct DecapConfig {
  std::vector<Cidr> from;   // forwarders
  std::vector<Cidr> peers;  // other backends; empty: packets are neither handed on nor accepted from them
  std::vector<Cidr> to;     // VIPs; empty: every address, and the kernel decides
  uint16_t gue_port = 6'080;
};

struct DecapCounters {
  explicit DecapCounters(Metrics& metrics);
  std::array<Counter*, kDecapReasons> dropped{};  // the first is not used
  Counter& delivered_packets;
  Counter& delivered_bytes;
  Counter& handed_on_packets;
};

// The kind of tunnel packets that a socket receives.
enum class Wrapping : uint8_t { ip4_in_ip4, ip6_in_ip4, ip4_in_ip6, ip6_in_ip6, gue_in_ip4, gue_in_ip6 };

class Receiver final : private IoHandler {
 public:
  // Needs CAP_NET_RAW, except for GUE. `config`, `device`, `hand_on` and `counters` must outlive it. `hand_on` is null
  // if there are no peers.
  static Result<std::unique_ptr<Receiver>> open(EventLoop& loop, Wrapping wrapping, const DecapConfig& config,
                                                const TunDevice& device, HandOn* hand_on, DecapCounters& counters);
  ~Receiver();

 private:
  Receiver(EventLoop& loop, UniqueFd fd, Wrapping wrapping, const DecapConfig& config, const TunDevice& device,
           HandOn* hand_on, DecapCounters& counters);
  void on_io(uint32_t events) override;
  DecapReason deliver(uint8_t* datagram, size_t bytes, const IpAddress& source, uint8_t traffic_class);
  Unwrapped unwrap(const uint8_t* datagram, size_t bytes) const;

  static constexpr unsigned kBatch = 32;
  static constexpr size_t kMostBytes = 65'536;

  EventLoop& loop_;
  UniqueFd fd_;
  Wrapping wrapping_;
  const DecapConfig& config_;
  const TunDevice& device_;
  HandOn* hand_on_;
  DecapCounters& counters_;
  std::vector<uint8_t> buffers_;  // kBatch buffers of kMostBytes
};

}  // namespace tidegate::l4
