// SPDX-License-Identifier: Apache-2.0
// Probes that the forwarder itself sends: what is sent, which replies count, and what an order may say.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "conf/model/probe.h"
#include "conf/model/service.h"
#include "l4/probe/board.h"
#include "l4/probe/order.h"
#include "tests/unit/l4/decider_fixture.h"

namespace tidegate::l4::testing::probe_test {

constexpr size_t kIp4 = kEthernetBytes, kTcp4 = kIp4 + kIp4HeaderBytes, kTcp6 = kIp4 + kIp6HeaderBytes;

// RFC 1071 over the pseudo header, written independently of the code under test. A correct packet sums to zero.
uint16_t sum_of_transport(const Bytes& frame, bool v4) {
  const size_t at = v4 ? kTcp4 : kTcp6;
  const size_t bytes = v4 ? load_be16(&frame[kIp4 + 2]) - kIp4HeaderBytes : load_be16(&frame[kIp4 + 4]);
  Bytes all(frame.begin() + static_cast<ptrdiff_t>(v4 ? kIp4 + 12 : kIp4 + 8),
            frame.begin() + static_cast<ptrdiff_t>(at));
  append(all, {0, frame[v4 ? kIp4 + 9 : kIp4 + 6]});
  append_be16(all, bytes);
  all.insert(all.end(), frame.begin() + static_cast<ptrdiff_t>(at), frame.begin() + static_cast<ptrdiff_t>(at + bytes));
  return checksum_finish(checksum_add(all.data(), all.size(), 0));
}

class ProbeTest : public DeciderTest {
 protected:
  ProbeTest() {
    DeciderConfig config;
    config.probes = &board_;
    restart(std::move(config));
  }
  ProbeOrder order(const std::string& vip = "10.0.0.100", uint8_t protocol = kProtocolTcp) {
    const BackendEntry& backend = tables_->backend(edge_.id(1));
    return {.protocol = protocol,
            .vip = ip(vip),
            .port = 80,
            .neighbour = ip(vip).is_v4() ? backend.neighbour_v4 : backend.neighbour_v6,
            .sequence = 0xfffffffe,
            .payload = protocol == kProtocolUdp ? "who" : ""};
  }
  // Orders a probe, and returns the frame that is sent.
  Bytes ask(const ProbeOrder& wanted) {
    slot_ = board_.order(wanted).value();
    sent_.clear();
    decider_->tick(++now_ms_, *this);
    for (const Bytes& frame : sent_) {
      const uint8_t protocol = load_be16(&frame[12]) == kEtherTypeIp4 ? frame[kIp4 + 9] : frame[kIp4 + 6];
      if (protocol == wanted.protocol && Mac::from(frame.data()) == mac_of_backend(1)) return frame;
    }
    return {};
  }
  Bytes reply(uint8_t flags, uint32_t acknowledged, const std::string& from = "10.0.0.100") {
    Bytes frame = tcp_frame(from, 80, ip(from).is_v4() ? "10.0.0.2" : "fd00::2", kFirstProbePort + slot_, flags);
    std::copy_n(mac_of_backend(1).bytes.begin(), 6, frame.begin() + 6);
    store_be32(&frame[(ip(from).is_v4() ? kTcp4 : kTcp6) + 8], acknowledged);
    return frame;
  }
  ProbeBoard board_;
  uint16_t slot_ = 0;
};

TEST_F(ProbeTest, TheBackendIsAskedForTheVipByItsMac) {
  for (const std::string vip : {"10.0.0.100", "fd00::100"}) {
    const bool v4 = ip(vip).is_v4();
    const Bytes frame = ask(order(vip));
    ASSERT_GE(frame.size(), kMinFrameBytes) << vip;
    EXPECT_EQ(Mac::from(frame.data()), mac_of_backend(1));
    EXPECT_EQ(Mac::from(frame.data() + 6), kOurMac);
    PacketView view;
    ASSERT_EQ(parse_frame(frame.data(), frame.size(), view), DropReason::none);
    EXPECT_EQ(view.destination, words_of(ip(vip)));
    EXPECT_EQ(view.source, words_of(ip(v4 ? "10.0.0.2" : "fd00::2")));
    EXPECT_EQ(view.tcp_flags, kTcpSyn);
    EXPECT_EQ(load_be16(&frame[v4 ? kTcp4 : kTcp6]), kFirstProbePort + slot_);
    EXPECT_EQ(sum_of_transport(frame, v4), 0);
    if (v4) {
      EXPECT_EQ(checksum_finish(checksum_add(&frame[kIp4], kIp4HeaderBytes, 0)), 0);
    }
    EXPECT_FALSE(board_.take_done(slot_)) << "nothing has come yet";
  }
}

TEST_F(ProbeTest, ASynAckIsAnAnswerAndIsResetByWhoeverSentIt) {
  for (const std::string vip : {"10.0.0.100", "fd00::100"}) {
    const size_t at = ip(vip).is_v4() ? kTcp4 : kTcp6;
    ask(order(vip));
    const Decided decided = decide(reply(kTcpSyn | kTcpAck, 0xffffffff, vip));
    ASSERT_EQ(decided.outcome.verdict, FrameVerdict::answer) << vip;
    EXPECT_EQ(decided.to(), mac_of_backend(1));
    EXPECT_EQ(decided.frame[at + 13], kTcpRst);
    EXPECT_EQ(load_be32(&decided.frame[at + 4]), 0xffffffff) << "the number that the backend expects next";
    EXPECT_EQ(sum_of_transport(decided.frame, ip(vip).is_v4()), 0);
    const std::optional<ProbeBoard::Done> done = board_.take_done(slot_);
    ASSERT_TRUE(done);
    EXPECT_EQ(done->end, ProbeEnd::answered);
  }
}

TEST_F(ProbeTest, AResetIsARefusal) {
  ask(order());
  EXPECT_EQ(decide(reply(kTcpRst | kTcpAck, 0xffffffff)).outcome.verdict, FrameVerdict::consume);
  EXPECT_EQ(board_.take_done(slot_)->end, ProbeEnd::refused);
}

TEST_F(ProbeTest, WhatIsNoReplyCountsForNothingAndTheProbeGoesOn) {
  ask(order());
  Bytes other_port = reply(kTcpSyn | kTcpAck, 0xffffffff);
  store_be16(&other_port[kTcp4 + 2], static_cast<uint16_t>(kFirstProbePort + slot_ + 1));
  Bytes from_port = reply(kTcpSyn | kTcpAck, 0xffffffff);
  store_be16(&from_port[kTcp4], 81);
  for (const Bytes& frame :
       {reply(kTcpSyn | kTcpAck, 0xfffffffe), reply(kTcpAck, 0xffffffff), reply(kTcpRst, 0xffffffff),
        reply(kTcpSyn | kTcpAck, 0xffffffff, "10.0.0.12"), other_port, from_port,
        udp_frame("10.0.0.100", 80, "10.0.0.2", static_cast<uint16_t>(kFirstProbePort + slot_))}) {
    EXPECT_EQ(reason_for(frame), DropReason::not_local) << "as every frame to an address of our own";
    EXPECT_FALSE(board_.take_done(slot_));
  }
  EXPECT_EQ(decide(reply(kTcpSyn | kTcpAck, 0xffffffff)).outcome.verdict, FrameVerdict::answer);
  EXPECT_TRUE(board_.take_done(slot_));
  EXPECT_EQ(reason_for(reply(kTcpSyn | kTcpAck, 0xffffffff)), DropReason::not_local) << "it is over";
}

TEST_F(ProbeTest, ADatagramIsKeptAsFarAsThereIsRoom) {
  const Bytes frame = ask(order("10.0.0.100", kProtocolUdp));
  EXPECT_EQ(sum_of_transport(frame, true), 0);
  EXPECT_EQ(std::string(frame.begin() + kTcp4 + 8, frame.begin() + kTcp4 + 11), "who");
  const std::string said(kMaxProbeReply + 100, 'x');
  const Bytes answer = udp_frame("10.0.0.100", 80, "10.0.0.2", static_cast<uint16_t>(kFirstProbePort + slot_), said);
  EXPECT_EQ(decide(answer).outcome.verdict, FrameVerdict::consume);
  EXPECT_EQ(board_.take_done(slot_)->reply, said.substr(0, kMaxProbeReply));
}

// The packet in a frame to backend 1, behind the outer header of its tunnel, as a frame of its own.
Bytes unwrapped(const Bytes& frame, const Action& tunnel, bool v4) {
  const size_t at = kEthernetBytes + tunnel.header_bytes;
  EXPECT_GT(frame.size(), at);
  Bytes inner(frame.begin(), frame.begin() + 12);
  append_be16(inner, v4 ? kEtherTypeIp4 : kEtherTypeIp6);
  inner.insert(inner.end(), frame.begin() + static_cast<ptrdiff_t>(std::min(at, frame.size())), frame.end());
  return inner;
}

TEST_F(ProbeTest, ABackendBehindATunnelIsAskedThroughIt) {
  for (const Forwarding mode : {Forwarding::ipip, Forwarding::gue, Forwarding::vxlan}) {
    for (const std::string vip : {"10.0.0.100", "fd00::100"}) {
      const bool v4 = ip(vip).is_v4();
      const Action tunnel = make_action({.mode = mode, .vni = 7}, v4 ? 4 : 6, {ip("10.0.0.2"), 32}, ip("10.0.0.11"), 0);
      ProbeOrder wanted = order(vip);
      wanted.tunnel = tunnel;
      const auto to_backend = [&](const Bytes& frame) {
        EXPECT_EQ(Mac::from(frame.data()), mac_of_backend(1)) << name(mode);
        EXPECT_EQ(Mac::from(frame.data() + 6), kOurMac);
        EXPECT_EQ(load_be16(&frame[12]), kEtherTypeIp4);
        PacketView view;
        const Bytes inner = unwrapped(frame, tunnel, v4);
        EXPECT_EQ(parse_frame(inner.data(), inner.size(), view), DropReason::none) << name(mode) << ' ' << vip;
        EXPECT_EQ(view.destination, words_of(ip(vip)));
        EXPECT_EQ(sum_of_transport(inner, v4), 0);
        return view;
      };
      slot_ = board_.order(wanted).value();
      sent_.clear();
      decider_->tick(++now_ms_, *this);
      const auto sent = std::find_if(sent_.begin(), sent_.end(), [](const Bytes& frame) {
        return load_be16(&frame[12]) == kEtherTypeIp4 && Mac::from(frame.data()) == mac_of_backend(1);
      });
      ASSERT_NE(sent, sent_.end()) << name(mode) << ' ' << vip;
      EXPECT_EQ(to_backend(*sent).tcp_flags, kTcpSyn);
      // The answer comes directly, and not through the tunnel. The reset that ends the connection goes through the
      // tunnel.
      Bytes answer = reply(kTcpSyn | kTcpAck, 0xffffffff, vip);
      answer[11] ^= 1;
      const Decided decided = decide(answer);
      EXPECT_EQ(decided.outcome.verdict, FrameVerdict::answer) << name(mode) << ' ' << vip;
      EXPECT_EQ(to_backend(decided.frame).tcp_flags, kTcpRst);
      EXPECT_EQ(board_.take_done(slot_)->end, ProbeEnd::answered);
    }
  }
}

TEST_F(ProbeTest, AProbeThatDoesNotFitIntoItsTunnelIsNotSent) {
  ProbeOrder wanted = order();
  wanted.tunnel = make_action({.mode = Forwarding::gue}, 4, {ip("10.0.0.2"), 32}, ip("10.0.0.11"), 60);
  EXPECT_TRUE(ask(wanted).empty());
  EXPECT_EQ(board_.take_done(slot_)->end, ProbeEnd::too_long);
}

TEST_F(ProbeTest, AProbeThatCannotLeaveSaysWhy) {
  ProbeOrder wanted = order();
  wanted.neighbour = kNoNeighbour;
  EXPECT_TRUE(ask(wanted).empty());
  EXPECT_EQ(board_.take_done(slot_)->end, ProbeEnd::no_neighbour);
  decider_->set_ports({PortIdentity{kOurMac, {{ip("fd00::2"), 64}}}});
  EXPECT_TRUE(ask(order()).empty());
  EXPECT_EQ(board_.take_done(slot_)->end, ProbeEnd::no_source);
  EXPECT_FALSE(ask(order("fd00::100")).empty()) << "the other family has one";
}

TEST_F(ProbeTest, PortsRestAndAFullBoardRefuses) {
  ask(order());
  const uint16_t first = slot_;
  EXPECT_FALSE(board_.cancel(first));
  EXPECT_EQ(reason_for(reply(kTcpSyn | kTcpAck, 0xffffffff)), DropReason::not_local) << "a late reply";
  std::vector<uint16_t> slots;
  while (const std::optional<uint16_t> slot = board_.order(order())) {
    slots.push_back(*slot);
    decider_->tick(++now_ms_, *this);
  }
  EXPECT_EQ(slots.size(), kMaxProbes);
  EXPECT_NE(slots.front(), first);
  for (const uint16_t slot : slots) EXPECT_FALSE(board_.cancel(slot));
  EXPECT_TRUE(board_.order(order()));
}

TEST(ProbeOrderTest, ReadsWhatControlWritesAndTellsItsEnd) {
  const Result<ProbeRequest> read = read_probe_request(
      R"({"pool":"p","backend":"b","protocol":"udp","timeout_ms":5,"payload":"00fF","targets":[{"vip":"fd00::1","port":53}]})");
  EXPECT_FALSE(read) << "hexadecimal is in lower case";
  const Result<ProbeRequest> good = read_probe_request(
      R"({"pool":"p","backend":"b","protocol":"udp","timeout_ms":5,"payload":"00ff","targets":[{"vip":"fd00::1","port":53}]})");
  ASSERT_TRUE(good) << good.error().message;
  EXPECT_EQ(good->payload, std::string("\0\xff", 2));
  EXPECT_EQ(good->targets[0], *Endpoint::parse("[fd00::1]:53"));
  const auto told = nlohmann::json::parse(write_probe_results({{good->targets[0], ProbeEnd::answered, "\n"}}));
  EXPECT_EQ(told["results"][0]["end"], "answered");
  EXPECT_EQ(told["results"][0]["reply"], "0a");
}

TEST(ProbeOrderTest, RefusesWhatIsNoOrder) {
  const nlohmann::json good = {{"pool", "p"},
                               {"backend", "b"},
                               {"protocol", "tcp"},
                               {"timeout_ms", 1},
                               {"targets", {{{"vip", "10.0.0.1"}, {"port", 80}}}}};
  ASSERT_TRUE(read_probe_request(good.dump()));
  for (const auto& [key, value] : std::initializer_list<std::pair<const char*, nlohmann::json>>{
           {"pool", 1},
           {"backend", nullptr},
           {"protocol", "icmp"},
           {"timeout_ms", 0},
           {"timeout_ms", -1},
           {"timeout_ms", 1e9},
           {"timeout_ms", "1"},
           {"payload", "00"},
           {"targets", nlohmann::json::array()},
           {"targets", {1}},
           {"targets", {{{"vip", "x"}, {"port", 80}}}},
           {"targets", {{{"vip", "10.0.0.1"}, {"port", 0}}}},
           {"targets", {{{"vip", "10.0.0.1"}, {"port", 65'536}}}},
           {"targets", {{{"vip", 1}, {"port", 80}}}}}) {
    nlohmann::json bad = good;
    bad[key] = value;
    EXPECT_FALSE(read_probe_request(bad.dump())) << bad;
  }
  nlohmann::json many = good;
  for (size_t i = 0; i < kMaxProbeTargets; ++i) many["targets"].push_back(good["targets"][0]);
  EXPECT_FALSE(read_probe_request(many.dump()));
  nlohmann::json long_payload = good;
  long_payload["protocol"] = "udp";
  long_payload["payload"] = std::string(2 * kMaxProbePayload + 2, '0');
  EXPECT_FALSE(read_probe_request(long_payload.dump()));
  for (const char* body : {"", "{", "[]", "1", "null", "{}"}) EXPECT_FALSE(read_probe_request(body)) << body;
}

}  // namespace tidegate::l4::testing::probe_test
