// SPDX-License-Identifier: Apache-2.0
// The bounds of probes through a forwarder (`via: vip`) that a document and a forwarder have in common.
#pragma once

#include <cstddef>

namespace tidegate {

constexpr size_t kMaxVipProbeTargets = 32;   // addresses and ports of one pool
constexpr size_t kVipProbeReplyBytes = 512;  // bytes of a datagram that are compared

}  // namespace tidegate
