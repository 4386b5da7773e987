// SPDX-License-Identifier: Apache-2.0
// The Decider and a service's packets: flows, fragments, ICMP errors, bursts.
#include "l4/decider.h"
#include "conf/model.h"
#include "conf/model/pool.h"
#include "conf/model/service.h"

#include <map>
#include <random>

#include "tests/unit/l4/decider_fixture.h"

namespace tidegate::l4::decider_test {

using namespace testing;

TEST_F(DeciderTest, RewritesOnlyTheEthernetAddresses) {
  for (const Bytes& frame : {tcp_frame("192.0.2.7", 40000, "10.0.0.100", 80, kTcpSyn, "x"),
                             udp_frame("2001:db8::7", 999, "fd00::100", 53)}) {
    const Decided decided = decide(frame);
    ASSERT_EQ(decided.outcome.verdict, FrameVerdict::forward);
    EXPECT_EQ(Mac::from(decided.frame.data() + 6), kOurMac);
    EXPECT_TRUE(std::equal(frame.begin() + 12, frame.end(), decided.frame.begin() + 12, decided.frame.end()));
  }
}

TEST_F(DeciderTest, PinsAFlowThroughAChangeOfTables) {
  std::map<uint16_t, int> pinned;
  for (uint16_t port = 1'000; port < 1'300; ++port) {
    pinned[port] = tcp_backend(port, kTcpSyn);
    ASSERT_GE(pinned[port], 0);
    EXPECT_EQ(tcp_backend(port, kTcpAck), pinned[port]);
  }
  edge_.say(0, OverrideState::drained);
  publish();
  uint32_t on_draining = 0;
  for (const auto& [port, backend] : pinned) {
    EXPECT_EQ(tcp_backend(port, kTcpAck), backend);
    if (backend == 0) ++on_draining;
  }
  EXPECT_GT(on_draining, 50u);
  for (uint16_t port = 2'000; port < 2'300; ++port) EXPECT_NE(tcp_backend(port, kTcpSyn), 0) << "no new flow";
}

TEST_F(DeciderTest, MovesTheFlowsOfABackendThatIsDown) {
  std::map<uint16_t, int> pinned;
  for (uint16_t port = 1'000; port < 1'300; ++port) pinned[port] = tcp_backend(port, kTcpSyn);
  edge_.say(1, OverrideState::down);
  publish();
  uint32_t moved = 0;
  for (const auto& [port, backend] : pinned) {
    const int now = tcp_backend(port, kTcpAck);
    EXPECT_NE(now, 1);
    if (backend == 1) {
      ++moved;
    } else {
      EXPECT_EQ(now, backend);
    }
  }
  EXPECT_EQ(counters_->flows_repicked.value(), moved);
}

TEST_F(DeciderTest, SendsARepeatedSynToTheSameBackendAndAReusedPortAnew) {
  uint16_t port = 1'000;
  while (tcp_backend(port, kTcpSyn) != 0) ++port;
  edge_.say(0, OverrideState::drained);
  publish();
  EXPECT_EQ(tcp_backend(port, kTcpSyn), 0) << "the SYN again, before the handshake is done";
  EXPECT_EQ(tcp_backend(port, kTcpAck), 0);
  EXPECT_NE(tcp_backend(port, kTcpSyn), 0) << "a new connection on an established tuple";

  edge_.live_state.overrides.clear();
  publish();
  port = 2'000;
  while (tcp_backend(port, kTcpSyn) != 0) ++port;
  tcp_backend(port, kTcpAck);
  EXPECT_EQ(tcp_backend(port, kTcpFin | kTcpAck), 0);
  edge_.say(0, OverrideState::drained);
  publish();
  EXPECT_EQ(tcp_backend(port, kTcpAck), 0) << "the rest of a closing flow";
  EXPECT_NE(tcp_backend(port, kTcpSyn), 0) << "the port is used again";
}

TEST_F(DeciderTest, ForgetsAnIdleUdpFlow) {
  const auto backend = [&](uint16_t port) { return backend_of(udp_frame("192.0.2.7", port, "10.0.0.100", 53)); };
  uint16_t port = 1'000;
  while (backend(port) != 0) ++port;
  edge_.say(0, OverrideState::drained);
  publish();
  now_ms_ += 29'000;
  EXPECT_EQ(backend(port), 0);
  now_ms_ += 30'000;
  EXPECT_NE(backend(port), 0);
}

TEST_F(DeciderTest, PicksAgainWhenABackendLosesItsAddressOfTheFamily) {
  std::map<uint16_t, int> four, six;
  const auto six_backend = [&](uint16_t port, uint8_t flags) {
    return backend_of(tcp_frame("2001:db8::7", port, "fd00::100", 80, flags));
  };
  for (uint16_t port = 1'000; port < 1'100; ++port) {
    four[port] = tcp_backend(port, kTcpSyn);
    six[port] = six_backend(port, kTcpSyn);
  }
  edge_.backend(0).addresses.pop_back();  // the backend loses its IPv6 address
  publish();
  for (uint16_t port = 1'000; port < 1'100; ++port) {
    EXPECT_EQ(tcp_backend(port, kTcpAck), four[port]) << "IPv4 is as it was";
    const int now = six_backend(port, kTcpAck);
    EXPECT_EQ(now, six[port] == 0 ? now : six[port]);
    EXPECT_GT(now, 0) << "not into a hole, and not to the one without the address";
  }
}

// The result must be the same if another service still uses the pool.
TEST_F(DeciderTest, LeavesFlowsWithTheirBackendsWhenTheServiceMovesToAnotherPool) {
  for (const bool still_used : {true, false}) {
    edge_ = Edge();
    restart({});
    Pool other = edge_.model.pools[0];
    other.name = "other";
    for (size_t i = 0; i < 3; ++i) {
      other.backends[i].name = "other" + std::to_string(i);
      other.backends[i].addresses = {ip("10.0.0.2" + std::to_string(i))};
    }
    edge_.model.pools.push_back(other);
    std::map<uint16_t, int> pinned;
    for (uint16_t port = 1'000; port < 1'100; ++port) pinned[port] = tcp_backend(port, kTcpSyn);
    edge_.model.services[0].pool = 1;
    edge_.model.services[1].pool = still_used ? 0 : 1;
    publish();
    for (size_t i = 0; i < 3; ++i) tell(ip("10.0.0.2" + std::to_string(i)), Mac{{2, 0, 0, 0, 0, 0x21}});
    for (uint16_t port = 1'000; port < 1'100; ++port) EXPECT_EQ(tcp_backend(port, kTcpAck), pinned[port]);
    EXPECT_EQ(tcp_backend(5'000, kTcpSyn), -2) << "a new one goes to the new pool";
    edge_.model.services[1].pool = 1;
    edge_.model.pools.erase(edge_.model.pools.begin());
    for (Service& service : edge_.model.services) service.pool = 0;
    publish();
    for (uint16_t port = 1'000; port < 1'100; ++port) EXPECT_EQ(tcp_backend(port, kTcpAck), -2) << "the pool is gone";
  }
}

TEST_F(DeciderTest, PinsAConnectionAgainAfterARestartHoweverSlowItIs) {
  uint16_t port = 1'000;
  while (tcp_backend(port, kTcpAck) != 0) ++port;  // no SYN was seen, as after a restart of the forwarder
  edge_.say(0, OverrideState::drained);
  publish();
  for (int packet = 0; packet < 6; ++packet) {
    now_ms_ += 10 * 60'000;
    decider_->tick(now_ms_, *this);
    tell(ip("10.0.0.11"), mac_of_backend(0));
    EXPECT_EQ(tcp_backend(port, kTcpAck), 0) << "ten minutes after the one before";
  }
}

TEST_F(DeciderTest, KeepsAnAssuredFlowThroughAForgedSynOrReset) {
  for (const uint8_t forged : {kTcpSyn, kTcpRst, static_cast<uint8_t>(kTcpRst | kTcpAck)}) {
    SCOPED_TRACE(static_cast<int>(forged));
    uint16_t port = static_cast<uint16_t>(1'000 + forged * 500);
    while (tcp_backend(port, kTcpSyn) != 0) ++port;
    tcp_backend(port, kTcpAck);
    now_ms_ += 1'500;
    tcp_backend(port, kTcpAck);
    edge_.say(0, OverrideState::drained);
    publish();
    EXPECT_EQ(tcp_backend(port, forged), 0);
    now_ms_ += 30'000;
    EXPECT_EQ(tcp_backend(port, kTcpAck), 0) << "the client goes on";
    // The client's host has forgotten the connection: the backend's answer to the SYN makes it send an RST.
    EXPECT_EQ(tcp_backend(port, kTcpSyn), 0);
    EXPECT_EQ(tcp_backend(port, kTcpRst), 0);
    EXPECT_NE(tcp_backend(port, kTcpSyn), 0) << "a new connection";
    edge_.live_state.overrides.clear();
    publish();
  }
}

// A map from tuple to backend predicts the result of every packet of a random history.
TEST_F(DeciderTest, AgreesWithANaiveTwin) {
  struct Twin {
    int backend;
    bool confirmed;
  };
  std::map<uint16_t, Twin> twin;
  std::mt19937 random(11);
  std::vector<OverrideState> state(3);
  std::vector<bool> spoken(3, false);
  for (int step = 0; step < 20'000; ++step) {
    if (step % 500 == 499) {
      const size_t index = random() % 3;
      edge_.live_state.overrides.clear();
      if (random() % 3 != 0) edge_.say(index, random() % 2 == 0 ? OverrideState::drained : OverrideState::down);
      publish();
    }
    const auto port = static_cast<uint16_t>(1'000 + random() % 400);
    const bool syn = random() % 4 == 0;
    const FlowTuple tuple{
        4, kProtocolTcp, htons(port), htons(80), words_of(ip("192.0.2.7")), words_of(ip("10.0.0.100"))};
    const ServiceEntry* service = tables_->find_service(4, tuple.vip, kProtocolTcp, htons(80));
    const BackendId fresh =
        pick_backend(*service, FlowHasher(kFlowKey), 4, tuple.client, FlowHasher(kFlowKey).tuple(tuple));
    const auto known = twin.find(port);
    int expected = 0;
    while (edge_.id(static_cast<size_t>(expected)) != fresh) ++expected;
    const bool keeps =
        known != twin.end() && tables_->backend(edge_.id(static_cast<size_t>(known->second.backend))).keeps_flows(4);
    if (keeps && !(syn && known->second.confirmed)) {
      expected = known->second.backend;
      if (!syn) known->second.confirmed = true;
    } else {
      twin[port] = {expected, !syn};  // a flow that begins without a SYN never sees "the same SYN again"
    }
    ASSERT_EQ(tcp_backend(port, syn ? kTcpSyn : kTcpAck), expected) << "step " << step;
  }
}

TEST_F(DeciderTest, KeepsAClientTogetherWhereTheServiceKeysByClient) {
  edge_.model.services[0].flow_key = FlowKey::client;
  publish();
  const int first = tcp_backend(1'000, kTcpSyn);
  for (uint16_t port = 1'001; port < 1'100; ++port) EXPECT_EQ(tcp_backend(port, kTcpSyn), first);
  std::map<int, int> seen;
  for (int client = 1; client < 200; ++client) {
    ++seen[backend_of(tcp_frame("192.0.2." + std::to_string(client), 1'000, "10.0.0.100", 80, kTcpSyn))];
  }
  EXPECT_EQ(seen.size(), 3u);
}

TEST_F(DeciderTest, SendsLaterFragmentsAfterTheirFirst) {
  const auto fragment = [](uint16_t id, uint16_t field, uint16_t port) {
    return ethernet(kEtherTypeIp4,
                    ip4(ip("192.0.2.7"), ip("10.0.0.100"), kProtocolUdp, udp(port, 53), {{}, field, id}));
  };
  EXPECT_EQ(reason_for(fragment(5, 100, 1)), DropReason::fragment_without_first);
  for (uint16_t id = 10; id < 60; ++id) {
    const int first = backend_of(fragment(id, 0x2000, id));
    ASSERT_GE(first, 0);
    EXPECT_EQ(backend_of(fragment(id, 0x2000 | 10, 7)), first);
    EXPECT_EQ(backend_of(fragment(id, 20, 7)), first);
  }
  now_ms_ += 10'000;
  EXPECT_EQ(reason_for(fragment(10, 100, 1)), DropReason::fragment_without_first);
}

TEST_F(DeciderTest, RelaysPacketTooBigToTheFlowsBackend) {
  for (uint16_t port = 1'000; port < 1'100; ++port) {
    const int backend = tcp_backend(port, kTcpSyn);
    // What the backend sent, from the VIP to the client. The error quotes 8 bytes of its TCP header (RFC 792).
    Bytes quoted =
        ip4(ip("10.0.0.100"), ip("192.0.2.7"), kProtocolTcp, tcp(80, port, kTcpAck, std::string(1'400, 'x')));
    quoted.resize(28);
    const Bytes error = packet("198.51.100.1", "10.0.0.100", kProtocolIcmp, icmp4(3, 4, quoted, 1'280));
    const Decided decided = decide(error);
    ASSERT_EQ(decided.outcome.verdict, FrameVerdict::relay);
    EXPECT_EQ(decided.to(), mac_of_backend(static_cast<size_t>(backend)));
    EXPECT_TRUE(std::equal(error.begin() + 12, error.end(), decided.frame.begin() + 12));

    const int six = backend_of(tcp_frame("2001:db8::7", port, "fd00::100", 80, kTcpSyn));
    Bytes body = {0, 0, 5, 0};
    append(body, ip6(ip("fd00::100"), ip("2001:db8::7"), kProtocolTcp, tcp(80, port, kTcpAck)));
    EXPECT_EQ(backend_of(ethernet(kEtherTypeIp6, icmp6_packet(ip("2001:db8::1"), ip("fd00::100"), 2, body))), six);
  }
}

TEST_F(DeciderTest, NamesIcmpThatItCannotPlace) {
  const auto about = [&](const Bytes& quoted) {
    return reason_for(packet("198.51.100.1", "10.0.0.100", kProtocolIcmp, icmp4(3, 4, quoted)));
  };
  const IpAddress vip = ip("10.0.0.100"), client = ip("192.0.2.7");
  EXPECT_EQ(about(ip4(ip("10.0.0.101"), client, kProtocolTcp, tcp(80, 1, 0))), DropReason::icmp_quote_unknown);
  EXPECT_EQ(about(ip4(vip, client, kProtocolTcp, tcp(81, 1, 0))), DropReason::icmp_quote_unknown);
  EXPECT_EQ(about({0x45, 0, 0, 40}), DropReason::icmp_quote_malformed);
  EXPECT_EQ(reason_for(packet("192.0.2.7", "10.0.0.100", kProtocolIcmp, icmp4(13, 0, {}))),
            DropReason::icmp_unsupported);
}

TEST_F(DeciderTest, AsksTheOtherWorkersForTheFlowOfAnIcmpError) {
  DeciderConfig config;
  config.workers = 2;
  restart(config);
  const Bytes quoted = ip4(ip("10.0.0.100"), ip("192.0.2.7"), kProtocolTcp, tcp(80, 1'000, kTcpAck));
  const Bytes error = packet("198.51.100.1", "10.0.0.100", kProtocolIcmp, icmp4(3, 4, quoted));
  EXPECT_EQ(decide(error).outcome.verdict, FrameVerdict::hand_over);
  Bytes copy = error;
  Frame frame;
  frame.data = copy.data();
  frame.bytes = frame.capacity = static_cast<uint32_t>(copy.size());
  frame.asked = 1;  // the last worker asked uses the hash table
  FrameOutcome outcome;
  decider_->decide(*tables_, &frame, &outcome, 1, now_ms_);
  EXPECT_EQ(outcome.verdict, FrameVerdict::relay);
}

TEST_F(DeciderTest, NamesEveryOtherWayOut) {
  const Mac stranger = {{0x02, 9, 9, 9, 9, 9}};
  const Bytes syn = ip4(ip("192.0.2.7"), ip("10.0.0.100"), kProtocolTcp, tcp(1, 80, kTcpSyn));
  EXPECT_EQ(reason_for(ethernet(kEtherTypeIp4, syn, stranger)), DropReason::other_station);
  EXPECT_EQ(reason_for(ethernet(kEtherTypeIp4, syn, kBroadcastMac)), DropReason::not_local);
  EXPECT_EQ(reason_for(tcp_frame("192.0.2.7", 1, "10.0.0.100", 81, kTcpSyn)), DropReason::no_service);
  EXPECT_EQ(reason_for(tcp_frame("192.0.2.7", 1, "10.0.0.55", 80, kTcpSyn)), DropReason::not_local);
  EXPECT_EQ(reason_for(tcp_frame("127.0.0.1", 1, "10.0.0.100", 80, kTcpSyn)), DropReason::martian_source);
  EXPECT_EQ(reason_for(Bytes(13, 0)), DropReason::frame_truncated);
  EXPECT_EQ(reason_for(packet("192.0.2.7", "10.0.0.100", 132, Bytes(12, 0))), DropReason::no_service);

  for (size_t i = 0; i < 3; ++i) edge_.say(i, OverrideState::down);
  publish();
  EXPECT_EQ(reason_for(tcp_frame("192.0.2.7", 1, "10.0.0.100", 80, kTcpSyn)), DropReason::no_backend);
  edge_.live_state.overrides.clear();
  for (size_t i = 0; i < 3; ++i) edge_.backend(i).addresses = {ip("10.0.0.20" + std::to_string(i))};
  publish();
  EXPECT_EQ(reason_for(tcp_frame("192.0.2.7", 1, "10.0.0.100", 80, kTcpSyn)), DropReason::neighbour_unresolved);
  EXPECT_EQ(counters_->dropped_packets[static_cast<size_t>(DropReason::no_backend)].value(), 1u);
}

TEST_F(DeciderTest, DecidesAWholeBurstAsItWouldOneByOne) {
  const auto fragment = [](uint16_t id, uint16_t field) {
    return ethernet(kEtherTypeIp4, ip4(ip("192.0.2.7"), ip("10.0.0.100"), kProtocolUdp, udp(id, 53), {{}, field, id}));
  };
  std::vector<Bytes> frames;
  for (uint16_t port = 1'000; frames.size() < kBurst; ++port) {
    frames.push_back(port % 7 == 0 ? arp(1, kRouterMac, "10.0.0.1", Mac{}, "10.0.0.100", kBroadcastMac)
                                   : tcp_frame("192.0.2.7", port, "10.0.0.100", port % 5 == 0 ? 81 : 80, kTcpSyn));
    if (port % 8 != 0) continue;
    frames.push_back(fragment(port, 0x2000));
    frames.push_back(fragment(port, 12));
    const Bytes quoted = ip4(ip("10.0.0.100"), ip("192.0.2.7"), kProtocolTcp, tcp(80, port, kTcpAck));
    frames.push_back(packet("198.51.100.1", "10.0.0.100", kProtocolIcmp, icmp4(3, 4, quoted, 1'280)));
  }
  frames.resize(kBurst);
  std::vector<Bytes> buffers = frames;
  std::vector<Frame> views(kBurst);
  std::vector<FrameOutcome> outcomes(kBurst);
  for (size_t i = 0; i < kBurst; ++i) {
    buffers[i].resize(frames[i].size() + 64);
    views[i].data = buffers[i].data();
    views[i].bytes = static_cast<uint32_t>(frames[i].size());
    views[i].capacity = static_cast<uint32_t>(buffers[i].size());
  }
  decider_->decide(*tables_, views.data(), outcomes.data(), kBurst, now_ms_);
  for (size_t i = 0; i < kBurst; ++i) {
    const Decided alone = decide(frames[i]);
    EXPECT_EQ(outcomes[i].verdict, alone.outcome.verdict);
    EXPECT_EQ(outcomes[i].reason, alone.outcome.reason);
    buffers[i].resize(views[i].bytes);
    EXPECT_EQ(buffers[i], alone.frame);
  }
}

TEST_F(DeciderTest, SaysWhichPortABurstGoesByIfAllOfItGoes) {
  std::vector<Bytes> buffers(kBurst);
  std::vector<Frame> views(kBurst);
  std::vector<FrameOutcome> outcomes(kBurst);
  const auto decide_burst = [&](size_t bad) {
    for (size_t i = 0; i < kBurst; ++i) {
      const auto client_port = static_cast<uint16_t>(1'000 + i);
      buffers[i] = i % 2 == 0 ? tcp_frame("192.0.2.7", client_port, "10.0.0.100", i == bad ? 81 : 80, kTcpAck)
                              : udp_frame("2001:db8::7", client_port, "fd00::100", i == bad ? 81 : 53);
      views[i].data = buffers[i].data();
      views[i].bytes = views[i].capacity = static_cast<uint32_t>(buffers[i].size());
    }
    return decider_->decide(*tables_, views.data(), outcomes.data(), kBurst, now_ms_);
  };
  EXPECT_EQ(decide_burst(kBurst), std::optional<uint16_t>(0));
  for (const FrameOutcome& outcome : outcomes) EXPECT_EQ(outcome.verdict, FrameVerdict::forward);
  EXPECT_EQ(decide_burst(0), std::nullopt);
  EXPECT_EQ(decide_burst(kBurst - 1), std::nullopt);
  EXPECT_EQ(decider_->decide(*tables_, views.data(), outcomes.data(), 0, now_ms_), std::nullopt);
}

}  // namespace tidegate::l4::decider_test
