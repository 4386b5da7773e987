// SPDX-License-Identifier: Apache-2.0
#include "l4/plain_packet.h"

#include <gtest/gtest.h>

#include <memory>
#include <random>
#include <vector>

#include "tests/unit/l4/frames.h"

namespace tidegate::l4::plain_packet_test {

using namespace testing;

uint64_t our_mac_word() {
  const Bytes frame = ethernet(kEtherTypeIp4, {});
  return mac_word(frame.data());
}

// Reads a copy on a buffer of exactly its size, so that the sanitizer sees a read of one byte too many. If the frame is
// taken, parse_frame and has_martian_source must give the same result.
bool is_plain(const Bytes& frame) {
  const std::unique_ptr<uint8_t[]> exact(new uint8_t[frame.size()]);
  std::copy(frame.begin(), frame.end(), exact.get());
  return if_plain(exact.get(), frame.size(), our_mac_word(), [&](const PlainPacket& packet) {
    PacketView view;
    EXPECT_EQ(parse_frame(exact.get(), frame.size(), view), DropReason::none);
    EXPECT_EQ(Mac::from(exact.get()), kOurMac);
    EXPECT_FALSE(has_martian_source(view));
    EXPECT_EQ(view.kind, PacketKind::transport);
    EXPECT_FALSE(view.first_fragment);
    EXPECT_EQ(view.family, packet.tuple.family);
    EXPECT_EQ(view.protocol, packet.tuple.protocol);
    EXPECT_EQ(view.source_port_be, packet.tuple.client_port_be);
    EXPECT_EQ(view.destination_port_be, packet.tuple.service_port_be);
    EXPECT_EQ(view.source, packet.tuple.client);
    EXPECT_EQ(view.destination, packet.tuple.vip);
    EXPECT_EQ(view.tcp_flags, packet.tcp_flags);
    EXPECT_EQ(source_of(exact.get() + kEthernetBytes, view.family), view.source);
    return true;
  });
}

std::vector<Bytes> plain_frames() {
  return {tcp_frame("192.0.2.7", 40000, "10.0.0.100", 443, kTcpSyn),
          tcp_frame("192.0.2.7", 1, "10.0.0.100", 2, kTcpAck, "x"),
          udp_frame("192.0.2.7", 1000, "10.0.0.100", 53, ""),
          udp_frame("192.0.2.7", 1000, "10.0.0.100", 53),
          tcp_frame("2001:db8::7", 40000, "fd00::100", 443, kTcpFin),
          udp_frame("2001:db8::7", 1000, "fd00::100", 53, ""),
          udp_frame("2001:db8::7", 1000, "fd00::100", 53)};
}

TEST(PlainPacket, TakesWholeTcpAndUdpPackets) {
  for (Bytes frame : plain_frames()) {
    EXPECT_TRUE(is_plain(frame));
    frame.resize(frame.size() + 7);  // Ethernet padding
    EXPECT_TRUE(is_plain(frame));
  }
}

TEST(PlainPacket, TakesNothingThatIsCutShort) {
  for (const Bytes& frame : plain_frames()) {
    for (size_t bytes = 0; bytes < frame.size(); ++bytes) {
      EXPECT_FALSE(is_plain(Bytes(frame.begin(), frame.begin() + static_cast<ptrdiff_t>(bytes)))) << bytes;
    }
  }
}

TEST(PlainPacket, LeavesTheRestToParseFrame) {
  const IpAddress client = ip("192.0.2.7"), vip = ip("10.0.0.100");
  const Bytes segment = tcp(40000, 443, kTcpAck);
  Ip4Options options, first_fragment, later_fragment;
  options.options = {1, 1, 1, 1};
  first_fragment.fragment_field = 0x2000;
  later_fragment.fragment_field = 1;
  for (const Ip4Options& more : {options, first_fragment, later_fragment}) {
    EXPECT_FALSE(is_plain(ethernet(kEtherTypeIp4, ip4(client, vip, kProtocolTcp, segment, more))));
  }
  const Bytes extension = {kProtocolUdp, 0, 1, 4, 0, 0, 0, 0};
  Bytes extended = extension;
  append(extended, udp(1, 2));
  EXPECT_FALSE(is_plain(ethernet(kEtherTypeIp6, ip6(ip("2001:db8::7"), ip("fd00::100"), 60, extended))));
  EXPECT_FALSE(is_plain(packet("192.0.2.7", "10.0.0.100", 47, segment)));
  EXPECT_FALSE(is_plain(ethernet(kEtherTypeIp4, ip4(client, vip, kProtocolTcp, segment), kRouterMac)));
  for (const char* martian : {"0.1.2.3", "127.0.0.1", "224.0.0.1", "255.255.255.255", "10.0.0.100"}) {
    EXPECT_FALSE(is_plain(tcp_frame(martian, 1, "10.0.0.100", 80, kTcpAck))) << martian;
  }
  for (const char* martian : {"::", "::1", "ff02::1", "fd00::100"}) {
    EXPECT_FALSE(is_plain(tcp_frame(martian, 1, "fd00::100", 80, kTcpAck))) << martian;
  }
}

// However a header is changed: for a frame that if_plain takes, parse_frame must give the same result.
TEST(PlainPacket, AgreesWithParseFrameOnMangledFrames) {
  std::mt19937_64 random(1);
  const std::vector<Bytes> frames = plain_frames();
  size_t taken = 0;
  for (int i = 0; i < 200'000; ++i) {
    Bytes frame = frames[random() % frames.size()];
    for (uint64_t left = random() % 3 + 1; left != 0; --left) {
      frame[random() % frame.size()] = static_cast<uint8_t>(random() % 3 == 0 ? random() : random() % 24);
    }
    if (random() % 4 == 0) frame.resize(random() % (frame.size() + 8));
    taken += is_plain(frame) ? 1 : 0;
    if (HasFailure()) FAIL() << "frame " << i;
  }
  EXPECT_GT(taken, 50'000U);
}

}  // namespace tidegate::l4::plain_packet_test
