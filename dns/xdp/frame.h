// SPDX-License-Identifier: Apache-2.0
// A query's frame as AF_XDP hands it over, and the same frame turned into its answer. Pure: bytes in, bytes out.
//
// Ethernet II; IPv4 without options (RFC 791) or IPv6 without extension headers (RFC 8200); UDP (RFC 768). XdpProgram
// lets nothing else through. But everything that the answer depends on is checked here again.
//
// The checksums of IPv4's header and of UDP are checked as the kernel does. A frame from the other side of a veth on
// this host may have an incomplete UDP checksum, only the sum of the pseudo header, which a network card would
// complete. Such a frame was never on a wire, and is accepted too. Answers have complete checksums.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "core/ip.h"
#include "dns/wire/wire.h"

namespace tidegate::dns {

// clang-format off
#define TIDEGATE_DNS_FRAME_FAULTS(X)                                                                  \
  X(not_plain_udp,    "no whole UDP datagram right behind an IP header without options")            \
  X(wrong_length,     "lengths that contradict each other or the frame")                            \
  X(wrong_checksum,   "an IPv4 header that was damaged on its way")                                 \
  X(wrong_udp_checksum, "a UDP datagram that was damaged on its way, or has no checksum over IPv6")   \
  X(source_port_zero, "nobody can be answered at port 0")
// clang-format on

enum class FrameFault : uint8_t {
#define TIDEGATE_DNS_ENUM(id, sentence) id,
  TIDEGATE_DNS_FRAME_FAULTS(TIDEGATE_DNS_ENUM)
#undef TIDEGATE_DNS_ENUM
      none,
};

inline constexpr const char* kFrameFaults[] = {
#define TIDEGATE_DNS_NAME(id, sentence) #id,
    TIDEGATE_DNS_FRAME_FAULTS(TIDEGATE_DNS_NAME)
#undef TIDEGATE_DNS_NAME
};
#undef TIDEGATE_DNS_FRAME_FAULTS
inline constexpr size_t kFrameFaultCount = sizeof kFrameFaults / sizeof kFrameFaults[0];

// The position of a query in its frame, and its sender.
struct QueryFrame {
  IpAddress client;
  size_t headers_bytes = 0;  // length of the Ethernet, IP and UDP headers: the query begins after them
  size_t query_bytes = 0;
};

constexpr size_t kMaxFrameHeaderBytes = 14 + 40 + 8;
constexpr size_t kMaxAnswerFrameBytes = kMaxFrameHeaderBytes + kMaxUdpPayload;

FrameFault parse_query_frame(std::span<const uint8_t> frame, QueryFrame& query);

// Turns the headers of a frame that parse_query_frame accepted around, for the answer that is in the query's place.
// Returns the frame's new length. `identification` distinguishes IPv4 datagrams (RFC 6864 §4.2).
size_t turn_into_answer(uint8_t* frame, const QueryFrame& query, size_t answer_bytes, uint16_t identification);

// The sum of RFC 1071 over the bytes, in the byte order of memory. `sum` is the sum of earlier bytes.
uint64_t add_to_checksum(uint64_t sum, std::span<const uint8_t> bytes);
uint16_t finish_checksum(uint64_t sum);

}  // namespace tidegate::dns
