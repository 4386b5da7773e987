// SPDX-License-Identifier: Apache-2.0
// The tunnelling modes: every mode in every combination of families, read back by independent code; packets that are
// too long; fragments and ICMP errors of a flow.
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "conf/model.h"
#include "conf/model/node.h"
#include "conf/model/pool.h"
#include "conf/model/service.h"
#include "l4/tunnel.h"
#include "tests/unit/l4/harness.h"

namespace tidegate::l4::tunnel_test {

using namespace testing;

constexpr Forwarding kTunnels[] = {Forwarding::ipip, Forwarding::gue, Forwarding::vxlan};

// The packet as a backend would read it from the wire.
struct Unpacked {
  IpAddress source, destination;
  uint16_t udp_source = 0, udp_destination = 0;
  uint8_t traffic_class = 0;
  Bytes inner_ethernet, packet;
  size_t outer_bytes = 0;
};

IpAddress address_at(const uint8_t* bytes, bool v4) {
  IpAddress address;
  address.family = v4 ? IpAddress::Family::v4 : IpAddress::Family::v6;
  std::copy(bytes, bytes + (v4 ? 4 : 16), address.bytes.begin());
  return address;
}

Unpacked unpack(const Bytes& frame, Forwarding mode, uint8_t inner_family) {
  Unpacked out;
  const bool v4 = frame.at(12) == 0x08;
  EXPECT_EQ(load_be16(frame.data() + 12), v4 ? 0x0800 : 0x86dd);
  const uint8_t* ip = frame.data() + 14;
  out.outer_bytes = frame.size() - 14;
  const uint8_t protocol = v4 ? ip[9] : ip[6];
  size_t at = v4 ? 20 : 40;
  if (v4) {
    EXPECT_EQ(ip[0], 0x45);
    EXPECT_EQ(load_be16(ip + 2), out.outer_bytes);
    EXPECT_EQ(load_be16(ip + 6), 0x4000) << "DF";
    EXPECT_EQ(ip[8], 64);
    EXPECT_EQ(checksum_finish(checksum_add(ip, 20, 0)), 0);
    out.traffic_class = ip[1];
  } else {
    EXPECT_EQ(ip[0] >> 4, 6);
    EXPECT_EQ(load_be16(ip + 4), out.outer_bytes - 40);
    EXPECT_EQ(ip[7], 64);
    out.traffic_class = static_cast<uint8_t>((ip[0] & 0x0f) << 4 | ip[1] >> 4);
  }
  out.source = address_at(ip + (v4 ? 12 : 8), v4);
  out.destination = address_at(ip + (v4 ? 16 : 24), v4);
  const uint8_t inner = inner_family == 4 ? 4 : 41;
  EXPECT_EQ(protocol, mode == Forwarding::ipip ? inner : 17);
  if (mode != Forwarding::ipip) {
    out.udp_source = load_be16(ip + at);
    out.udp_destination = load_be16(ip + at + 2);
    EXPECT_EQ(load_be16(ip + at + 4), out.outer_bytes - at);
    EXPECT_EQ(load_be16(ip + at + 6), 0) << "no UDP checksum: RFC 6935, RFC 7348 section 5";
    at += 8;
  }
  if (mode == Forwarding::gue) {
    EXPECT_EQ(Bytes(ip + at, ip + at + 4), (Bytes{0, inner, 0, 0}));
    at += 4;
  } else if (mode == Forwarding::vxlan) {
    EXPECT_EQ(Bytes(ip + at, ip + at + 8), (Bytes{8, 0, 0, 0, 0, 0x12, 0x34, 0}));
    out.inner_ethernet.assign(ip + at + 8, ip + at + 22);
    at += 22;
  }
  out.packet.assign(ip + at, ip + out.outer_bytes);
  return out;
}

void use(Harness& worker, Forwarding mode) {
  for (Service& service : worker.edge.model.services) {
    service.forwarding = mode;
    service.vni = mode == Forwarding::vxlan ? 0x1234 : 0;
  }
  worker.publish();
}

// Leaves the backends the addresses of one family.
void keep_family(Harness& worker, IpAddress::Family family) {
  for (Backend& backend : worker.edge.model.pools[0].backends) {
    std::erase_if(backend.addresses, [&](const IpAddress& address) { return address.family != family; });
  }
  worker.publish();
}

Bytes client_frame(uint8_t family, uint16_t port, const std::string& payload = "hello") {
  return family == 4 ? tcp_frame("192.0.2.7", port, "10.0.0.100", 80, kTcpSyn, payload)
                     : tcp_frame("2001:db8::7", port, "fd00::100", 80, kTcpSyn, payload);
}

size_t header_bytes(Forwarding mode, bool outer_v4) {
  return (outer_v4 ? 20 : 40) + (mode == Forwarding::ipip ? 0 : mode == Forwarding::gue ? 12 : 30);
}

TEST(Tunnel, CarriesEachFamilyInEachFamilyInEveryMode) {
  for (const Forwarding mode : kTunnels) {
    for (const IpAddress::Family outer : {IpAddress::Family::v4, IpAddress::Family::v6}) {
      for (const uint8_t inner : {uint8_t{4}, uint8_t{6}}) {
        SCOPED_TRACE(std::string(name(mode)) + " " + std::to_string(inner) + " in " +
                     std::to_string(static_cast<int>(outer)));
        Harness worker;
        use(worker, mode);
        keep_family(worker, outer);
        for (uint16_t port = 1'000; port < 1'050; ++port) {
          const Bytes frame = client_frame(inner, port);
          const Decided decided = worker.decide(frame);
          ASSERT_EQ(decided.outcome.verdict, FrameVerdict::forward) << name(decided.outcome.reason);
          EXPECT_TRUE(worker.decider->moved());
          EXPECT_EQ(Mac::from(decided.frame.data() + 6), kOurMac);
          const Unpacked out = unpack(decided.frame, mode, inner);
          const int backend = Harness::backend_of(decided);
          ASSERT_GE(backend, 0);
          EXPECT_EQ(out.destination, worker.edge.backend(static_cast<size_t>(backend)).addresses[0]);
          EXPECT_EQ(out.source, ip(outer == IpAddress::Family::v4 ? "10.0.0.2" : "fd00::2"));
          EXPECT_EQ(out.packet, Bytes(frame.begin() + 14, frame.end())) << "as the client sent it";
          if (mode == Forwarding::gue) EXPECT_EQ(out.udp_destination, 6'080);
          if (mode == Forwarding::vxlan) {
            EXPECT_EQ(out.udp_destination, 4'789);
            EXPECT_EQ(Mac::from(out.inner_ethernet.data()), kVxlanBackendMac);
            EXPECT_EQ(load_be16(out.inner_ethernet.data() + 12), inner == 4 ? 0x0800 : 0x86dd);
          }
        }
        EXPECT_EQ(worker.counters->tunnelled[static_cast<size_t>(mode)].packets.value(), 50u);
      }
    }
  }
}

TEST(Tunnel, PrefersTheFamilyOfThePacket) {
  Harness worker;
  use(worker, Forwarding::ipip);
  for (const uint8_t family : {uint8_t{4}, uint8_t{6}}) {
    const Unpacked out = unpack(worker.decide(client_frame(family, 1)).frame, Forwarding::ipip, family);
    EXPECT_EQ(static_cast<uint8_t>(out.destination.family), family);
  }
}

TEST(Tunnel, CopiesTheTrafficClassAndCutsOffEthernetPadding) {
  Harness worker;
  use(worker, Forwarding::gue);
  Bytes four = client_frame(4, 1, "");
  four[15] = 0xb9;
  store_be16(four.data() + 24, 0);
  store_be16(four.data() + 24, checksum_finish(checksum_add(four.data() + 14, 20, 0)));
  Bytes six = client_frame(6, 1, "");
  six[14] = 0x6b;
  six[15] = 0x90;
  for (const Bytes& frame : {four, six}) {
    Bytes padded = frame;
    padded.resize(frame.size() + 13, 0xee);
    const uint8_t family = frame[14] >> 4;
    const Unpacked out = unpack(worker.decide(padded).frame, Forwarding::gue, family);
    EXPECT_EQ(out.traffic_class, 0xb9);
    EXPECT_EQ(out.packet, Bytes(frame.begin() + 14, frame.end()));
  }
}

TEST(Tunnel, VariesTheOuterSourceByFlowAndKeepsItForAFlow) {
  for (const Forwarding mode : kTunnels) {
    for (const uint8_t family : {uint8_t{4}, uint8_t{6}}) {
      Harness worker;
      use(worker, mode);
      worker.edge.model.nodes[0].l4.tunnel_sources = {*Cidr::parse("198.18.0.0/16"), *Cidr::parse("fd99::/96")};
      worker.publish();
      std::set<std::string> sources;
      std::set<uint16_t> ports;
      for (uint16_t port = 1'000; port < 1'200; ++port) {
        const Unpacked out = unpack(worker.decide(client_frame(family, port)).frame, mode, family);
        EXPECT_TRUE(worker.edge.model.nodes[0].l4.tunnel_sources[family == 4 ? 0 : 1].contains(out.source));
        const Unpacked again = unpack(worker.decide(client_frame(family, port)).frame, mode, family);
        EXPECT_EQ(again.source, out.source);
        EXPECT_EQ(again.udp_source, out.udp_source);
        sources.insert(out.source.to_string());
        ports.insert(out.udp_source);
        if (mode != Forwarding::ipip) EXPECT_GE(out.udp_source, 49'152);
      }
      EXPECT_GT(sources.size(), 190u);
      if (mode != Forwarding::ipip) EXPECT_GT(ports.size(), 190u);
    }
  }
}

// A packet of exactly the tunnel's MTU passes; one byte more is answered with that MTU.
TEST(Tunnel, TellsTheSenderThatAPacketIsTooBig) {
  for (const Forwarding mode : kTunnels) {
    for (const bool by_path : {false, true}) {
      for (const uint8_t family : {uint8_t{4}, uint8_t{6}}) {
        SCOPED_TRACE(std::string(name(mode)) + " IPv" + std::to_string(family));
        Harness worker({}, by_path ? 9'000 : 1'500);
        use(worker, mode);
        for (Backend& backend : worker.edge.model.pools[0].backends) backend.mtu = by_path ? 1'400 : 0;
        worker.publish();
        const size_t mtu = (by_path ? 1'400 : 1'500) - header_bytes(mode, family == 4);
        const size_t headers = 20 + (family == 4 ? 20 : 40);
        const auto frame_of = [&](size_t packet_bytes) {
          Bytes frame = client_frame(family, 1'000, std::string(packet_bytes - headers, 'x'));
          if (family == 4) {
            frame[20] = 0x40;  // DF
            store_be16(frame.data() + 24, 0);
            store_be16(frame.data() + 24, checksum_finish(checksum_add(frame.data() + 14, 20, 0)));
          }
          return frame;
        };
        EXPECT_EQ(unpack(worker.decide(frame_of(mtu)).frame, mode, family).outer_bytes, by_path ? 1'400u : 1'500u);

        const Bytes big = frame_of(mtu + 1);
        const Decided decided = worker.decide(big);
        ASSERT_EQ(decided.outcome.verdict, FrameVerdict::answer) << name(decided.outcome.reason);
        const Bytes& told = decided.frame;
        EXPECT_EQ(decided.to(), kRouterMac);
        EXPECT_EQ(Mac::from(told.data() + 6), kOurMac);
        const uint8_t* outer = told.data() + 14;
        if (family == 4) {
          EXPECT_EQ(load_be16(outer + 2), told.size() - 14);
          EXPECT_LE(told.size() - 14, 576u);
          EXPECT_EQ(checksum_finish(checksum_add(outer, 20, 0)), 0);
          EXPECT_EQ(address_at(outer + 12, true), ip("10.0.0.100"));
          EXPECT_EQ(address_at(outer + 16, true), ip("192.0.2.7"));
          EXPECT_EQ(checksum_finish(checksum_add(outer + 20, told.size() - 34, 0)), 0);
          EXPECT_EQ(outer[20], 3);
          EXPECT_EQ(outer[21], 4);
          EXPECT_EQ(load_be16(outer + 26), mtu);
          EXPECT_TRUE(std::equal(told.begin() + 42, told.end(), big.begin() + 14));
        } else {
          EXPECT_EQ(load_be16(outer + 4), told.size() - 54);
          EXPECT_LE(told.size() - 14, 1'280u);
          EXPECT_EQ(address_at(outer + 8, false), ip("fd00::100"));
          EXPECT_EQ(address_at(outer + 24, false), ip("2001:db8::7"));
          EXPECT_EQ(icmp6_checksum(outer, outer + 40, told.size() - 54), 0);
          EXPECT_EQ(outer[40], 2);
          EXPECT_EQ(outer[41], 0);
          EXPECT_EQ(load_be32(outer + 44), mtu);
          EXPECT_TRUE(std::equal(told.begin() + 62, told.end(), big.begin() + 14));
        }
      }
    }
  }
}

TEST(Tunnel, TellsNobodyWhoWouldNotListen) {
  Harness worker;
  use(worker, Forwarding::ipip);
  // A router may fragment IPv4 without DF. The forwarder does not, and counts it.
  const Decided without_df = worker.decide(client_frame(4, 1'000, std::string(1'460, 'x')));
  EXPECT_EQ(without_df.outcome.verdict, FrameVerdict::drop);
  EXPECT_EQ(without_df.outcome.reason, DropReason::exceeds_mtu);
  EXPECT_EQ(worker.counters->too_big_packets.value(), 0u);
}

// The limit is a rate: a sender that was not told in one second is told in the next.
TEST(Tunnel, BoundsHowManySendersItTellsASecond) {
  Harness worker;
  use(worker, Forwarding::ipip);
  worker.now_ms = 10'000;
  unsigned told = 0;
  for (unsigned i = 0; i < kMaxTooBigPerSecond + 500; ++i) {
    const Bytes big = client_frame(6, static_cast<uint16_t>(i), std::string(1'440, 'x'));
    const Decided decided = worker.decide(big);
    told += decided.outcome.verdict == FrameVerdict::answer ? 1 : 0;
    if (decided.outcome.verdict == FrameVerdict::drop) EXPECT_EQ(decided.outcome.reason, DropReason::exceeds_mtu);
  }
  EXPECT_EQ(told, kMaxTooBigPerSecond);
  EXPECT_EQ(worker.decide(client_frame(6, 7, "small")).outcome.verdict, FrameVerdict::forward);
  worker.now_ms += 1'000;
  const Bytes victim = client_frame(6, 60'000, std::string(1'440, 'x'));
  EXPECT_EQ(worker.decide(victim).outcome.verdict, FrameVerdict::answer);
}

TEST(Tunnel, TellsWhichHeadersTakeASecondCacheLine) {
  const auto is_long = [](const TunnelConfig& tunnel, const std::string& source, const std::string& destination) {
    return make_action(tunnel, 4, {ip(source), 32}, ip(destination), 0).is_long();
  };
  EXPECT_FALSE(is_long({Forwarding::ipip, 0, 0}, "10.0.0.2", "10.0.0.11"));
  EXPECT_FALSE(is_long({Forwarding::ipip, 0, 0}, "fd00::2", "fd00::11"));
  EXPECT_FALSE(is_long({Forwarding::gue, 0, 0}, "10.0.0.2", "10.0.0.11"));
  EXPECT_TRUE(is_long({Forwarding::gue, 0, 0}, "fd00::2", "fd00::11"));
  EXPECT_TRUE(is_long({Forwarding::vxlan, 1, 0}, "10.0.0.2", "10.0.0.11"));
}

TEST(Tunnel, DropsByNameWhereTheBufferHasNoRoom) {
  const Action action = make_action({Forwarding::vxlan, 1, 0}, 4, {ip("fd00::2"), 128}, ip("fd00::11"), 0);
  Bytes buffer(64 + 128);
  const Bytes packet = client_frame(4, 1);
  for (const uint32_t room : {0u, 1u, 69u, 70u}) {
    std::copy(packet.begin(), packet.end(), buffer.begin() + room);
    Frame frame;
    frame.data = buffer.data() + room;
    frame.headroom = room;
    frame.bytes = static_cast<uint32_t>(packet.size());
    frame.capacity = static_cast<uint32_t>(packet.size());
    const DropReason reason = encapsulate(action, nullptr, 1, 1'500, kEthernetBytes, frame);
    EXPECT_EQ(reason, room < 70 ? DropReason::no_headroom : DropReason::none) << room;
    if (room < 70) EXPECT_TRUE(std::equal(packet.begin(), packet.end(), frame.data));
  }
}

TEST(Tunnel, CarriesFragmentsAndIcmpErrorsToTheBackendOfTheirFlow) {
  Harness worker;
  use(worker, Forwarding::gue);
  for (uint16_t port = 3'000; port < 3'050; ++port) {
    Ip4Options more;
    more.id = port;
    more.fragment_field = 0x2000;
    const auto udp_in = [&](const Bytes& payload) {
      return ethernet(kEtherTypeIp4, ip4(ip("192.0.2.7"), ip("10.0.0.100"), kProtocolUdp, payload, more));
    };
    const Decided first = worker.decide(udp_in(udp(port, 53, std::string(64, 'x'))));
    more.fragment_field = 9;
    const Bytes later = udp_in(Bytes(64, 'y'));
    const Decided second = worker.decide(later);
    ASSERT_GE(Harness::backend_of(first), 0);
    EXPECT_EQ(Harness::backend_of(second), Harness::backend_of(first));
    EXPECT_EQ(unpack(second.frame, Forwarding::gue, 4).packet, Bytes(later.begin() + 14, later.end()));

    Bytes quoted = ip4(ip("10.0.0.100"), ip("192.0.2.7"), kProtocolUdp, udp(53, port, std::string(64, 'z')));
    quoted.resize(28);
    const Bytes error = packet("198.51.100.1", "10.0.0.100", kProtocolIcmp, icmp4(3, 4, quoted, 1'280));
    const Decided relayed = worker.decide(error);
    EXPECT_EQ(relayed.outcome.verdict, FrameVerdict::relay);
    EXPECT_EQ(Harness::backend_of(relayed), Harness::backend_of(first));
    EXPECT_EQ(unpack(relayed.frame, Forwarding::gue, 4).packet, Bytes(error.begin() + 14, error.end()));
  }
}

TEST(Tunnel, OfAFormerPoolStaysForItsFlows) {
  Harness worker;
  use(worker, Forwarding::ipip);
  const Decided before = worker.decide(client_frame(4, 1));
  Pool other = worker.edge.model.pools[0];
  other.name = "other";
  worker.edge.model.pools.push_back(other);
  for (Service& service : worker.edge.model.services) {
    service.pool = 1;
    service.forwarding = Forwarding::l2dsr;
  }
  worker.publish();
  const Decided pinned = worker.decide(tcp_frame("192.0.2.7", 1, "10.0.0.100", 80, kTcpAck, "x"));
  EXPECT_EQ(Harness::backend_of(pinned), Harness::backend_of(before));
  EXPECT_EQ(unpack(pinned.frame, Forwarding::ipip, 4).destination,
            unpack(before.frame, Forwarding::ipip, 4).destination);
  EXPECT_FALSE(worker.decider->moved() && worker.decide(client_frame(4, 2)).frame[23] == 4) << "new flows go directly";
}

TEST(Tunnel, NeedsASourceOfItsOwnFamily) {
  Harness worker;
  use(worker, Forwarding::ipip);
  auto& addresses = worker.edge.model.nodes[0].l4.ports[0].addresses;
  std::erase_if(addresses, [](const auto& own) { return !own.first.is_v4(); });
  worker.publish();
  const Unpacked six_in_four = unpack(worker.decide(client_frame(6, 1)).frame, Forwarding::ipip, 6);
  EXPECT_TRUE(six_in_four.destination.is_v4()) << "the backend's IPv6 address cannot be sent to";
  keep_family(worker, IpAddress::Family::v6);
  const Decided decided = worker.decide(client_frame(6, 2));
  EXPECT_EQ(decided.outcome.reason, DropReason::no_backend);
}

TEST(Ranges, ServeEveryPortOfThemAndASinglePortGoesFirst) {
  Harness worker;
  Service range = Edge::service("range", Protocol::tcp, 1'000);
  range.last_port = 1'999;
  Service high = Edge::service("high", Protocol::tcp, 60'000);
  high.last_port = 65'535;
  Service single = Edge::service("single", Protocol::tcp, 1'500);
  worker.edge.model.services = {high, range, single};
  worker.publish();
  const auto service_at = [&](uint16_t port, uint8_t protocol = kProtocolTcp) -> std::string {
    const ServiceEntry* found = worker.tables->find_service(4, words_of(ip("10.0.0.100")), protocol, htons(port));
    return found == nullptr ? "none" : worker.edge.model.services[found->service].name;
  };
  for (uint32_t port = 1; port <= 65'535; ++port) {
    const char* expected = port == 1'500                    ? "single"
                           : port >= 1'000 && port <= 1'999 ? "range"
                           : port >= 60'000                 ? "high"
                                                            : "none";
    ASSERT_EQ(service_at(static_cast<uint16_t>(port)), expected) << port;
  }
  EXPECT_EQ(service_at(1'000, kProtocolUdp), "none");
  EXPECT_EQ(worker.decide(tcp_frame("192.0.2.7", 1, "10.0.0.100", 1'001, kTcpSyn)).outcome.verdict,
            FrameVerdict::forward);
  EXPECT_EQ(worker.decide(tcp_frame("192.0.2.7", 1, "10.0.0.100", 999, kTcpSyn)).outcome.reason,
            DropReason::no_service);
}

}  // namespace tidegate::l4::tunnel_test
