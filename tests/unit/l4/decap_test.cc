// SPDX-License-Identifier: Apache-2.0
// The decapsulator and any bytes: it returns the packet that the forwarder sent, and names the fault of everything
// else.
#include <gtest/gtest.h>

#include <memory>
#include <random>

#include "l4/decap/unwrap.h"
#include "tests/unit/l4/harness.h"

namespace tidegate::l4::decap_test {

using namespace testing;

Bytes inner4() { return ip4(ip("192.0.2.7"), ip("10.0.0.100"), kProtocolTcp, tcp(1, 80, kTcpSyn, "x")); }
Bytes inner6() { return ip6(ip("2001:db8::7"), ip("fd00::100"), kProtocolTcp, tcp(1, 80, kTcpSyn, "x")); }

Bytes gue(uint8_t first, uint8_t protocol, uint16_t flags, const Bytes& rest) {
  Bytes out = {first, protocol};
  append_be16(out, flags);
  append(out, rest);
  return out;
}

// Reads on a heap buffer of the exact size, so that a sanitizer sees a read past it.
template <class Unwrap>
std::pair<DecapReason, Bytes> on_heap(const Bytes& bytes, Unwrap&& unwrap) {
  const std::unique_ptr<uint8_t[]> copy(new uint8_t[bytes.size()]);
  std::copy(bytes.begin(), bytes.end(), copy.get());
  const Unwrapped inside = unwrap(copy.get(), bytes.size());
  if (inside.reason != DecapReason::none) return {inside.reason, {}};
  return {inside.reason, Bytes(inside.packet, inside.packet + inside.bytes)};
}
std::pair<DecapReason, Bytes> ipip(const Bytes& bytes, uint8_t inner) {
  return on_heap(bytes, [&](const uint8_t* data, size_t size) { return unwrap_ipip(data, size, inner); });
}
std::pair<DecapReason, Bytes> from_gue(const Bytes& bytes) { return on_heap(bytes, unwrap_gue); }

TEST(Decap, GivesBackWhatWasPutIn) {
  using Found = std::pair<DecapReason, Bytes>;
  EXPECT_EQ(ipip(inner4(), 4), (Found{DecapReason::none, inner4()}));
  EXPECT_EQ(ipip(inner6(), 41), (Found{DecapReason::none, inner6()}));
  EXPECT_EQ(from_gue(gue(0, 4, 0, inner4())), (Found{DecapReason::none, inner4()}));
  EXPECT_EQ(from_gue(gue(0, 41, 0, inner6())), (Found{DecapReason::none, inner6()}));
  Bytes padded = inner4();
  padded.resize(padded.size() + 20);
  EXPECT_EQ(ipip(padded, 4), (Found{DecapReason::none, inner4()})) << "padding is cut off";
  Bytes with_private_data = Bytes(8, 0xaa);
  append(with_private_data, inner4());
  EXPECT_EQ(from_gue(gue(2, 4, 0, with_private_data)), (Found{DecapReason::none, inner4()}));
  EXPECT_EQ(inner_destination(inner4().data()), ip("10.0.0.100"));
  EXPECT_EQ(inner_destination(inner6().data()), ip("fd00::100"));
}

TEST(Decap, NamesWhatIsWrong) {
  EXPECT_EQ(ipip({}, 4).first, DecapReason::inner_truncated);
  EXPECT_EQ(ipip(inner4(), 41).first, DecapReason::inner_version);
  EXPECT_EQ(ipip(inner6(), 4).first, DecapReason::inner_version);
  for (const uint8_t version : {uint8_t{4}, uint8_t{41}}) {
    const Bytes whole = version == 4 ? inner4() : inner6();
    for (size_t bytes = 1; bytes < whole.size(); ++bytes) {
      EXPECT_EQ(ipip(Bytes(whole.begin(), whole.begin() + static_cast<ptrdiff_t>(bytes)), version).first,
                DecapReason::inner_truncated);
    }
  }
  Bytes short_header = inner4();
  short_header[0] = 0x44;
  EXPECT_EQ(ipip(short_header, 4).first, DecapReason::inner_truncated);
  EXPECT_EQ(from_gue({0, 4, 0}).first, DecapReason::outer_truncated);
  EXPECT_EQ(from_gue(gue(0x40, 4, 0, inner4())).first, DecapReason::gue_variant);
  EXPECT_EQ(from_gue(gue(0x20, 4, 0, inner4())).first, DecapReason::gue_control);
  EXPECT_EQ(from_gue(gue(0, 4, 0x8000, inner4())).first, DecapReason::gue_flags);
  EXPECT_EQ(from_gue(gue(0, 6, 0, inner4())).first, DecapReason::gue_protocol);
  EXPECT_EQ(from_gue(gue(31, 4, 0, inner4())).first, DecapReason::outer_truncated);
  EXPECT_EQ(outer_ip4_bytes(inner4().data(), 19), 0u);
  EXPECT_EQ(outer_ip4_bytes(inner4().data(), 40), 20u);
}

// RFC 6040, figure 4: every pair of outer and inner ECN fields.
TEST(Decap, CarriesCongestionOnWithThePacket) {
  for (const bool v4 : {true, false}) {
    for (uint8_t outer = 0; outer < 4; ++outer) {
      for (uint8_t inner = 0; inner < 4; ++inner) {
        Bytes packet = v4 ? inner4() : inner6();
        const auto ecn = [&] { return v4 ? packet[1] & 3 : packet[1] >> 4 & 3; };
        packet[1] = static_cast<uint8_t>(packet[1] | (v4 ? 0xb8 | inner : inner << 4));
        if (v4) {
          store_be16(packet.data() + 10, 0);
          store_be16(packet.data() + 10, checksum_finish(checksum_add(packet.data(), 20, 0)));
        }
        const DecapReason reason = carry_congestion(static_cast<uint8_t>(0xb8 | outer), packet.data());
        EXPECT_EQ(reason, outer == 3 && inner == 0 ? DecapReason::inner_not_ect : DecapReason::none);
        if (reason != DecapReason::none) continue;
        EXPECT_EQ(ecn(), outer == 3 ? 3 : inner);
        if (v4) EXPECT_EQ(checksum_finish(checksum_add(packet.data(), 20, 0)), 0);
        if (v4) EXPECT_EQ(packet[1] & 0xfc, 0xb8);
      }
    }
  }
}

TEST(Decap, SurvivesArbitraryBytes) {
  std::mt19937_64 random(3);
  for (int round = 0; round < 20'000; ++round) {
    Bytes bytes = gue(0, random() % 2 == 0 ? 4 : 41, 0, random() % 2 == 0 ? inner4() : inner6());
    bytes.resize(random() % (bytes.size() + 1));
    for (unsigned change = random() % 4; change > 0 && !bytes.empty(); --change) {
      bytes[random() % bytes.size()] = static_cast<uint8_t>(random());
    }
    const auto [reason, packet] = from_gue(bytes);
    EXPECT_LE(packet.size(), bytes.size());
    if (reason == DecapReason::none) inner_destination(packet.data());
    ipip(bytes, 4);
    ipip(bytes, 41);
  }
}

}  // namespace tidegate::l4::decap_test
