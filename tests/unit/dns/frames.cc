// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/dns/frames.h"

#include "core/ip.h"

namespace tidegate::dns::test {

void put_u16(Bytes& frame, size_t at, uint16_t value) {
  frame.at(at) = static_cast<uint8_t>(value >> 8);
  frame.at(at + 1) = static_cast<uint8_t>(value);
}

uint16_t get_u16(const Bytes& frame, size_t at) { return static_cast<uint16_t>(frame.at(at) << 8 | frame.at(at + 1)); }

uint16_t naive_checksum(const Bytes& bytes) {
  uint32_t sum = 0;
  for (size_t i = 0; i < bytes.size(); i += 2) {
    sum += static_cast<uint32_t>(bytes[i] << 8) + (i + 1 < bytes.size() ? bytes[i + 1] : 0U);
    if (sum > 0xffff) sum -= 0xffff;
  }
  return static_cast<uint16_t>(~sum);
}

namespace {

size_t udp_at(const Bytes& frame) { return get_u16(frame, 12) == 0x0800 ? 34 : 54; }

Bytes pseudo_header(const Bytes& frame) {
  const size_t udp = udp_at(frame), addresses = udp == 34 ? 26 : 22;
  Bytes pseudo(frame.begin() + static_cast<ptrdiff_t>(addresses), frame.begin() + static_cast<ptrdiff_t>(udp));
  pseudo.insert(pseudo.end(), {frame.at(udp + 4), frame.at(udp + 5), 0, 17});
  return pseudo;
}

}  // namespace

void seal_udp(Bytes& frame) {
  put_u16(frame, udp_at(frame) + 6, 0);
  const uint16_t checksum = udp_checksum_rest(frame);
  put_u16(frame, udp_at(frame) + 6, checksum == 0 ? 0xffff : checksum);
}

uint16_t udp_checksum_rest(const Bytes& frame) {
  const size_t udp = udp_at(frame);
  Bytes covered = pseudo_header(frame);
  covered.insert(covered.end(), frame.begin() + static_cast<ptrdiff_t>(udp),
                 frame.begin() + static_cast<ptrdiff_t>(udp + get_u16(frame, udp + 4)));
  return naive_checksum(covered);
}

void seal_ipv4(Bytes& frame) {
  put_u16(frame, kEthernet + 10, 0);
  const auto header = frame.begin() + kEthernet;
  put_u16(frame, kEthernet + 10, naive_checksum(Bytes(header, header + 20)));
}

Bytes make_frame(const Sides& sides, const Bytes& payload) {
  const IpAddress client = *IpAddress::parse(sides.client), server = *IpAddress::parse(sides.server);
  const auto udp_bytes = static_cast<uint16_t>(8 + payload.size());
  Bytes frame(kServerMac.begin(), kServerMac.end());
  frame.insert(frame.end(), kClientMac.begin(), kClientMac.end());
  if (client.is_v4()) {
    frame.insert(frame.end(), {0x08, 0x00, 0x45, 0x10, 0, 0, 0x12, 0x34, 0x40, 0x00, 57, 17, 0, 0});
    put_u16(frame, kEthernet + 2, static_cast<uint16_t>(20 + udp_bytes));
  } else {
    frame.insert(frame.end(), {0x86, 0xdd, 0x60, 0x0a, 0xbc, 0xde, 0, 0, 17, 57});
    put_u16(frame, kEthernet + 4, udp_bytes);
  }
  for (const IpAddress& address : {client, server}) {
    frame.insert(frame.end(), address.bytes.begin(), address.bytes.begin() + static_cast<ptrdiff_t>(address.size()));
  }
  if (client.is_v4()) seal_ipv4(frame);
  const size_t udp = frame.size();
  frame.resize(udp + 8);
  put_u16(frame, udp, sides.client_port);
  put_u16(frame, udp + 2, sides.server_port);
  put_u16(frame, udp + 4, udp_bytes);
  put_u16(frame, udp + 6, static_cast<uint16_t>(~naive_checksum(pseudo_header(frame))));
  frame.insert(frame.end(), payload.begin(), payload.end());
  return frame;
}

}  // namespace tidegate::dns::test
