// SPDX-License-Identifier: Apache-2.0
#include "l4/packet_view.h"

#include <gtest/gtest.h>

#include <memory>

#include "tests/unit/l4/frames.h"

namespace tidegate::l4::packet_view_test {

using namespace testing;

// Parses a copy on a buffer of exactly its size, so that the sanitizer sees a read of one byte too many.
DropReason parse(const Bytes& frame, PacketView& view) {
  const std::unique_ptr<uint8_t[]> exact(new uint8_t[frame.size()]);
  std::copy(frame.begin(), frame.end(), exact.get());
  return parse_frame(exact.get(), frame.size(), view);
}

DropReason parse(const Bytes& frame) {
  PacketView view;
  return parse(frame, view);
}

TEST(PacketView, ReadsAnIpv4TcpSegment) {
  PacketView view;
  ASSERT_EQ(parse(tcp_frame("192.0.2.7", 40000, "10.0.0.100", 443, kTcpSyn), view), DropReason::none);
  EXPECT_EQ(view.kind, PacketKind::transport);
  EXPECT_EQ(view.family, 4);
  EXPECT_EQ(view.protocol, kProtocolTcp);
  EXPECT_EQ(ntohs(view.source_port_be), 40000);
  EXPECT_EQ(ntohs(view.destination_port_be), 443);
  EXPECT_EQ(address_of(view.source, 4), ip("192.0.2.7"));
  EXPECT_EQ(address_of(view.destination, 4), ip("10.0.0.100"));
  EXPECT_EQ(view.tcp_flags, kTcpSyn);
  EXPECT_EQ(view.l4_offset, 34);
}

TEST(PacketView, FindsThePortsBehindIpv4Options) {
  PacketView view;
  Ip4Options more;
  more.options = {1, 1, 1, 1, 7, 7, 4, 0, 0, 0, 0, 0};
  const Bytes frame =
      ethernet(kEtherTypeIp4, ip4(ip("192.0.2.7"), ip("10.0.0.100"), kProtocolUdp, udp(1000, 53), more));
  ASSERT_EQ(parse(frame, view), DropReason::none);
  EXPECT_EQ(ntohs(view.source_port_be), 1000);
  EXPECT_EQ(ntohs(view.destination_port_be), 53);
}

TEST(PacketView, DoesNotCountEthernetPaddingAsData) {
  PacketView view;
  Bytes frame = udp_frame("192.0.2.7", 1000, "10.0.0.100", 53, "ab");
  frame.resize(60);
  ASSERT_EQ(parse(frame, view), DropReason::none);
  EXPECT_EQ(view.l4_bytes, 10);
}

TEST(PacketView, FollowsIpv6ExtensionHeaders) {
  PacketView view;
  Bytes chain = {43,           0, 1, 4,  0, 0, 0, 0,  // hop-by-hop, then routing
                 60,           0, 2, 0,  0, 0, 0, 0,  // routing with no segments left, then destination options
                 kProtocolTcp, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
  append(chain, tcp(5000, 80, kTcpAck));
  ASSERT_EQ(parse(ethernet(kEtherTypeIp6, ip6(ip("2001:db8::7"), ip("fd00::100"), 0, chain)), view), DropReason::none);
  EXPECT_EQ(view.kind, PacketKind::transport);
  EXPECT_EQ(ntohs(view.source_port_be), 5000);
  EXPECT_EQ(view.l4_offset, 14 + 40 + 32);
}

TEST(PacketView, BoundsTheIpv6ExtensionChain) {
  const auto chain_of = [](size_t headers) {
    Bytes chain;
    for (size_t i = 0; i < headers; ++i) {
      append(chain, {static_cast<uint8_t>(i + 1 < headers ? 60 : kProtocolUdp), 0, 1, 4, 0, 0, 0, 0});
    }
    append(chain, udp(1, 2));
    return ethernet(kEtherTypeIp6, ip6(ip("2001:db8::7"), ip("fd00::100"), 60, chain));
  };
  EXPECT_EQ(parse(chain_of(kMaxIp6Extensions)), DropReason::none);
  EXPECT_EQ(parse(chain_of(kMaxIp6Extensions + 1)), DropReason::ip6_extensions_too_many);
}

TEST(PacketView, TellsFirstLaterAndAtomicFragmentsApart) {
  PacketView view;
  Ip4Options first{{}, 0x2000, 77}, later{{}, 0x2000 | 100, 77}, last{{}, 185, 77};
  const auto frame = [](const Ip4Options& more) {
    return ethernet(kEtherTypeIp4, ip4(ip("192.0.2.7"), ip("10.0.0.100"), kProtocolUdp, udp(1000, 53), more));
  };
  ASSERT_EQ(parse(frame(first), view), DropReason::none);
  EXPECT_EQ(view.kind, PacketKind::transport);
  EXPECT_TRUE(view.first_fragment);
  const uint32_t id = view.fragment_id;
  for (const Ip4Options& rest : {later, last}) {
    ASSERT_EQ(parse(frame(rest), view), DropReason::none);
    EXPECT_EQ(view.kind, PacketKind::later_fragment);
    EXPECT_EQ(view.fragment_id, id);
    EXPECT_EQ(view.source_port_be, 0) << "no ports in a later fragment";
  }

  Bytes atomic = {kProtocolUdp, 0, 0, 0, 1, 2, 3, 4};
  append(atomic, udp(1000, 53));
  ASSERT_EQ(parse(ethernet(kEtherTypeIp6, ip6(ip("2001:db8::7"), ip("fd00::100"), 44, atomic)), view),
            DropReason::none);
  EXPECT_EQ(view.kind, PacketKind::transport);
  EXPECT_FALSE(view.first_fragment);
  atomic[3] = 1;
  ASSERT_EQ(parse(ethernet(kEtherTypeIp6, ip6(ip("2001:db8::7"), ip("fd00::100"), 44, atomic)), view),
            DropReason::none);
  EXPECT_TRUE(view.first_fragment);
  atomic[2] = 5;
  ASSERT_EQ(parse(ethernet(kEtherTypeIp6, ip6(ip("2001:db8::7"), ip("fd00::100"), 44, atomic)), view),
            DropReason::none);
  EXPECT_EQ(view.kind, PacketKind::later_fragment);
  EXPECT_EQ(view.protocol, kProtocolUdp);
}

TEST(PacketView, NamesEveryTruncationAndReadsNothingBeyondIt) {
  Ip4Options options;
  options.options = {1, 1, 1, 1};
  Bytes chain = {kProtocolTcp, 0, 1, 4, 0, 0, 0, 0};
  append(chain, tcp(5000, 80, kTcpAck));
  const std::vector<Bytes> frames = {
      tcp_frame("192.0.2.7", 1, "10.0.0.100", 2, kTcpSyn),
      udp_frame("2001:db8::7", 1, "fd00::100", 2),
      ethernet(kEtherTypeIp4, ip4(ip("192.0.2.7"), ip("10.0.0.100"), kProtocolTcp, tcp(1, 2, 0), options)),
      ethernet(kEtherTypeIp6, ip6(ip("2001:db8::7"), ip("fd00::100"), 0, chain)),
      ethernet(kEtherTypeIp4, ip4(ip("192.0.2.7"), ip("10.0.0.100"), kProtocolIcmp, icmp4(8, 0, {1, 2, 3}))),
  };
  for (const Bytes& frame : frames) {
    ASSERT_EQ(parse(frame), DropReason::none);
    for (size_t bytes = 0; bytes < frame.size(); ++bytes) {
      const Bytes cut(frame.begin(), frame.begin() + static_cast<ptrdiff_t>(bytes));
      EXPECT_NE(parse(cut), DropReason::none) << bytes << " of " << frame.size();
    }
    // The same cut with matching lengths: whatever is read then must still be inside the frame.
    for (size_t bytes = kEthernetBytes; bytes < frame.size(); ++bytes) {
      Bytes cut(frame.begin(), frame.begin() + static_cast<ptrdiff_t>(bytes));
      const bool v4 = cut[12] == 0x08;
      if (v4 && bytes >= 18) store_be16(cut.data() + 16, static_cast<uint16_t>(bytes - 14));
      if (!v4 && bytes >= 54) store_be16(cut.data() + 18, static_cast<uint16_t>(bytes - 54));
      parse(cut);
    }
  }
}

struct Malformed {
  const char* what;
  DropReason reason;
  void (*spoil)(Bytes& frame);
};

TEST(PacketView, NamesWhatIsWrong) {
  const Malformed cases[] = {
      {"IPv4 with version 5", DropReason::ip4_header, [](Bytes& f) { f[14] = 0x55; }},
      {"header length 4", DropReason::ip4_header, [](Bytes& f) { f[14] = 0x44; }},
      {"header longer than the frame", DropReason::ip4_header, [](Bytes& f) { f[14] = 0x4f; }},
      {"total length below the header", DropReason::ip4_length, [](Bytes& f) { store_be16(f.data() + 16, 19); }},
      {"total length beyond the frame", DropReason::ip4_length, [](Bytes& f) { store_be16(f.data() + 16, 41); }},
      {"TCP data offset 4", DropReason::tcp_malformed, [](Bytes& f) { f[46] = 4 << 4; }},
      {"TCP data offset beyond the segment", DropReason::tcp_malformed, [](Bytes& f) { f[46] = 6 << 4; }},
      {"802.1Q", DropReason::vlan_tagged, [](Bytes& f) { store_be16(f.data() + 12, 0x8100); }},
      {"802.1ad", DropReason::vlan_tagged, [](Bytes& f) { store_be16(f.data() + 12, 0x88a8); }},
      {"LLDP", DropReason::not_ip, [](Bytes& f) { store_be16(f.data() + 12, 0x88cc); }},
      {"IPv6 by type, IPv4 by version", DropReason::ip6_header, [](Bytes& f) { store_be16(f.data() + 12, 0x86dd); }},
  };
  for (const Malformed& malformed : cases) {
    Bytes frame = tcp_frame("192.0.2.7", 1, "10.0.0.100", 2, kTcpSyn);
    malformed.spoil(frame);
    EXPECT_EQ(name(parse(frame)), name(malformed.reason)) << malformed.what;
  }
  Bytes routed = {kProtocolTcp, 0, 0, 1, 0, 0, 0, 0};  // routing header, one segment left
  append(routed, tcp(1, 2, 0));
  EXPECT_EQ(parse(ethernet(kEtherTypeIp6, ip6(ip("2001:db8::7"), ip("fd00::100"), 43, routed))),
            DropReason::ip6_source_routed);
  Bytes long_udp = udp(1, 2);
  store_be16(long_udp.data() + 4, 13);
  EXPECT_EQ(parse(packet("192.0.2.7", "10.0.0.100", kProtocolUdp, long_udp)), DropReason::udp_malformed);
}

TEST(PacketView, KnowsSourcesThatNoClientCanHave) {
  const auto martian = [](const std::string& source, const std::string& destination) {
    PacketView view;
    EXPECT_EQ(parse(udp_frame(source, 1, destination, 2), view), DropReason::none);
    return has_martian_source(view);
  };
  for (const char* source : {"0.0.0.0", "0.1.2.3", "127.0.0.1", "224.0.0.1", "255.255.255.255", "10.0.0.100"}) {
    EXPECT_TRUE(martian(source, "10.0.0.100")) << source;
  }
  for (const char* source : {"192.0.2.1", "1.0.0.0", "126.255.255.255", "223.255.255.255"}) {
    EXPECT_FALSE(martian(source, "10.0.0.100")) << source;
  }
  for (const char* source : {"::", "::1", "ff02::1", "fd00::100"}) EXPECT_TRUE(martian(source, "fd00::100")) << source;
  for (const char* source : {"::2", "2001:db8::1", "fe80::1"}) EXPECT_FALSE(martian(source, "fd00::100")) << source;
}

TEST(DropReason, HasANameAndASentenceForEach) {
  for (size_t i = 0; i < kDropReasons; ++i) {
    EXPECT_FALSE(name(static_cast<DropReason>(i)).empty());
    EXPECT_FALSE(sentence(static_cast<DropReason>(i)).empty());
  }
  EXPECT_EQ(name(DropReason::punt_refused), "punt_refused");
}

}  // namespace tidegate::l4::packet_view_test
