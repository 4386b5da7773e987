// SPDX-License-Identifier: Apache-2.0
// The datagrams in which forwarders of a site report their assured flows to each other. Pure functions of bytes, keys
// and times.
//
// Layout, all numbers in network order:
//   bytes 0-3    'T' 'G' 'F' 'S'
//   4, 5         layout (1), 0
//   6-7          number of flows, at most kMostSharedFlows
//   8-15         epoch: when the sender started, in nanoseconds of its wall clock
//   16-23        sequence number within the epoch, from 1 on
//   24-31        when it was sent, in milliseconds of the sender's wall clock
//   20 bytes for each flow: hash (8), backend_word() of its backend (8), time left in milliseconds (4)
//   16 bytes     the first half of the HMAC-SHA256 of everything before
// The HMAC's key belongs to the sender's address. So a datagram counts as forged if it is sent back to its sender, or
// sent on from another address.
//
// A recorded datagram that is sent again has no effect, because ReplayGuard refuses it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "core/hash.h"
#include "core/ip.h"
#include "l4/ids.h"

namespace tidegate::l4 {

constexpr size_t kShareHeadBytes = 32, kShareFlowBytes = 20, kShareMacBytes = 16;
constexpr size_t kMostSharedFlows = 67;  // so that a datagram fits into a packet of 1,500 bytes of either family
constexpr size_t kMostShareBytes = kShareHeadBytes + kMostSharedFlows * kShareFlowBytes + kShareMacBytes;

struct SharedFlow {
  uint64_t hash = 0;     // FlowHasher; equal on all hosts of a site
  uint64_t backend = 0;  // backend_word()
  uint32_t left_ms = 0;  // time until its time-out; 0: the connection has ended
};

struct ShareHead {
  uint64_t epoch = 0, sequence = 0, sent_ms = 0;
};

// Why a datagram is not used. X(name, sentence)
#define TIDEGATE_L4_SHARE_FAULTS(X)                                                        \
  X(stranger, "not from the address of a forwarder of this site")                          \
  X(malformed, "cut short, too long, or not such a datagram")                              \
  X(layout, "of another layout: the sender is of another release")                         \
  X(stale, "sent more than 30 seconds ago, or the clocks of the two hosts differ as much") \
  X(replayed, "received before, or sent before others that were received long ago")        \
  X(forged, "its code does not fit: changed on the way, or the site's secret is another one")

enum class ShareFault : uint8_t {
  none,
#define TIDEGATE_L4_ROW(name, sentence) name,
  TIDEGATE_L4_SHARE_FAULTS(TIDEGATE_L4_ROW)
#undef TIDEGATE_L4_ROW
      count_
};
constexpr size_t kShareFaults = static_cast<size_t>(ShareFault::count_);
std::string_view name(ShareFault fault);
std::string_view sentence(ShareFault fault);

// Remembers which datagrams of one sender were received: the newest epoch, and 64 sequence numbers of it (the window of
// RFC 4303 §3.4.3). Times are monotonic.
class ReplayGuard {
 public:
  bool is_new(const ShareHead& head, uint64_t now_ms) const;
  // Call only for a datagram that is not forged.
  void accept(const ShareHead& head, uint64_t now_ms);

  // After a silence of this length, every earlier datagram is stale, so nothing must be remembered. This ends the wait
  // for a sender whose wall clock was set back.
  static constexpr uint64_t kForgetMs = 60'000;

 private:
  uint64_t epoch_ = 0, newest_ = 0, seen_ = 0;  // bit i of seen_: newest_ - i was received
  uint64_t heard_ms_ = 0;
  bool heard_ = false;
};

constexpr uint64_t kShareFreshMs = 30'000;

// The key of one sender's datagrams.
std::string share_key(std::string_view secret, const Endpoint& sender);
// A backend's name in datagrams, because ids differ from host to host. `key` is derived from the site's secret.
uint64_t backend_word(const HashKey& key, const BackendKey& backend);

// Writes a datagram of `count` flows (at most kMostSharedFlows) to `out`, which has kMostShareBytes bytes. Returns its
// size.
size_t seal_flows(std::string_view key, const ShareHead& head, const SharedFlow* flows, size_t count, uint8_t* out);

struct ShareClock {
  uint64_t wall_ms = 0, monotonic_ms = 0;
};
struct OpenedFlows {
  ShareFault fault = ShareFault::none;
  size_t count = 0;
};
// Checks a datagram and reads its flows into `out`, which has room for kMostSharedFlows. The cheap checks come first.
// If everything is right, `guard` accepts it.
OpenedFlows open_flows(std::string_view key, const uint8_t* datagram, size_t bytes, const ShareClock& now,
                       ReplayGuard& guard, SharedFlow* out);

}  // namespace tidegate::l4
