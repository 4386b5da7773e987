// SPDX-License-Identifier: Apache-2.0
// Ethernet frames around DNS messages, written as a client's kernel would write them, for the tests of AF_XDP.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace tidegate::dns::test {

using Bytes = std::vector<uint8_t>;
using Mac = std::array<uint8_t, 6>;

inline constexpr Mac kServerMac{2, 0, 0, 0, 0, 1}, kClientMac{2, 0, 0, 0, 0, 2};
inline constexpr size_t kEthernet = 14, kV4Headers = 14 + 20 + 8, kV6Headers = 14 + 40 + 8;

struct Sides {
  std::string client = "198.51.100.7", server = "192.0.2.53";
  uint16_t client_port = 40'000, server_port = 53;
};
inline const Sides kV6Sides{"2001:db8:7::7", "2001:db8::53", 40'000, 53};

// The checksum of RFC 1071 by its definition, 16 bits at a time: the value for the header field.
uint16_t naive_checksum(const Bytes& bytes);
// The checksum of a UDP datagram within a frame, over its pseudo header. 0 if the sender's checksum is right.
uint16_t udp_checksum_rest(const Bytes& frame);

// A frame from the client to the server. Its UDP checksum may be unfinished, as a veth's peer may leave it: only the
// sum of the pseudo header.
Bytes make_frame(const Sides& sides, const Bytes& payload);
// Completes the UDP checksum.
void seal_udp(Bytes& frame);
// Recomputes the IPv4 header checksum after a test changed the header.
void seal_ipv4(Bytes& frame);
void put_u16(Bytes& frame, size_t at, uint16_t value);
uint16_t get_u16(const Bytes& frame, size_t at);

}  // namespace tidegate::dns::test
