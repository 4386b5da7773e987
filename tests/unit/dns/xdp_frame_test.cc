// SPDX-License-Identifier: Apache-2.0
#include "dns/xdp/frame.h"

#include <gtest/gtest.h>

#include <random>

#include "tests/unit/dns/frames.h"
#include "tests/unit/dns/support.h"

namespace tidegate::dns::test::xdp_frame_test {

// On a heap buffer of the frame's own size, so that a read past its end is found.
FrameFault fault_of(const Bytes& frame) {
  const Bytes exact(frame);
  QueryFrame query;
  return parse_query_frame(exact, query);
}

// The frame turned into an answer with these bytes.
Bytes turned(Bytes frame, const Bytes& answer, uint16_t identification = 7) {
  QueryFrame query;
  EXPECT_EQ(parse_query_frame(frame, query), FrameFault::none);
  frame.resize(std::max(frame.size(), query.headers_bytes + answer.size()));
  std::copy(answer.begin(), answer.end(), frame.begin() + static_cast<ptrdiff_t>(query.headers_bytes));
  frame.resize(turn_into_answer(frame.data(), query, answer.size(), identification));
  return frame;
}

Bytes slice(const Bytes& frame, size_t at, size_t bytes) {
  return Bytes(frame.begin() + static_cast<ptrdiff_t>(at), frame.begin() + static_cast<ptrdiff_t>(at + bytes));
}

TEST(XdpFrame, FindsTheQueryAndItsClient) {
  const Bytes message = make_query("www.example.test", rrtype::kA);
  for (const auto& [sides, headers] : {std::pair(Sides{}, kV4Headers), std::pair(kV6Sides, kV6Headers)}) {
    Bytes frame = make_frame(sides, message);
    frame.resize(frame.size() + 9);  // the padding of a short frame
    QueryFrame query;
    ASSERT_EQ(parse_query_frame(frame, query), FrameFault::none) << sides.client;
    EXPECT_EQ(query.client.to_string(), sides.client);
    EXPECT_EQ(query.headers_bytes, headers);
    EXPECT_EQ(query.query_bytes, message.size());
  }
}

TEST(XdpFrame, AnAnswerGoesBackTheWholeWayWithChecksumsThatHold) {
  for (const Sides& sides : {Sides{}, kV6Sides}) {
    // Odd and even lengths; shorter and longer than the query.
    for (const size_t bytes : {12UL, 13UL, 100UL, kMaxUdpPayload - 1, kMaxUdpPayload}) {
      const Bytes frame = make_frame(sides, make_query("www.example.test", rrtype::kA));
      const Bytes answer = turned(frame, Bytes(bytes, 0xa5));
      const bool v4 = sides.server == Sides{}.server;
      const size_t udp = v4 ? 34 : 54, source = v4 ? 26 : 22, size = v4 ? 4 : 16;
      ASSERT_EQ(answer.size(), udp + 8 + bytes);
      EXPECT_EQ(slice(answer, 0, 6), Bytes(kClientMac.begin(), kClientMac.end()));
      EXPECT_EQ(slice(answer, 6, 6), Bytes(kServerMac.begin(), kServerMac.end()));
      EXPECT_EQ(slice(answer, source, size), slice(frame, source + size, size));
      EXPECT_EQ(slice(answer, source + size, size), slice(frame, source, size));
      EXPECT_EQ(get_u16(answer, udp), sides.server_port);
      EXPECT_EQ(get_u16(answer, udp + 2), sides.client_port);
      EXPECT_EQ(get_u16(answer, udp + 4), 8 + bytes);
      EXPECT_EQ(udp_checksum_rest(answer), 0) << sides.client << " " << bytes;
      EXPECT_NE(get_u16(answer, udp + 6), 0);
      EXPECT_EQ(answer[v4 ? 22 : 21], 64) << "a time to live of its own";
      if (v4) {
        EXPECT_EQ(naive_checksum(slice(answer, kEthernet, 20)), 0);
        EXPECT_EQ(get_u16(answer, 16), 28 + bytes);
        EXPECT_EQ(get_u16(answer, 18), 7);
        EXPECT_EQ(answer[15], 0) << "the client's service class is not ours";
        EXPECT_EQ(get_u16(answer, 20), 0);
      } else {
        EXPECT_EQ(get_u16(answer, 18), 8 + bytes);
        EXPECT_EQ(slice(answer, 14, 4), (Bytes{0x60, 0, 0, 0}));
      }
    }
  }
}

TEST(XdpFrame, AChecksumOfZeroIsSentAsAllOnes) {
  // The last two bytes of the answer are set so that they complete the sum.
  for (const Sides& sides : {Sides{}, kV6Sides}) {
    const Bytes frame = make_frame(sides, Bytes(20, 1));
    Bytes answer(20, 1);
    answer[18] = answer[19] = 0;
    const Bytes once = turned(frame, answer);
    const size_t checksum = once.size() - 20 - 2;
    const uint16_t lacking = get_u16(once, checksum);
    answer[18] = static_cast<uint8_t>(lacking >> 8);
    answer[19] = static_cast<uint8_t>(lacking);
    EXPECT_EQ(get_u16(turned(frame, answer), checksum), 0xffff);
  }
}

TEST(XdpFrame, ChecksumsAreThoseOfTheDefinition) {
  std::mt19937 random(1);
  for (int turn = 0; turn < 2'000; ++turn) {
    Bytes bytes(random() % 1'500);
    for (uint8_t& byte : bytes) byte = turn % 3 == 0 ? 0xff : static_cast<uint8_t>(random());
    const uint16_t fast = finish_checksum(add_to_checksum(0, bytes));
    uint8_t stored[2];
    std::memcpy(stored, &fast, 2);
    ASSERT_EQ(stored[0] << 8 | stored[1], naive_checksum(bytes)) << bytes.size();
  }
}

TEST(XdpFrame, ACutFrameIsRefusedAtEveryLength) {
  for (const Sides& sides : {Sides{}, kV6Sides}) {
    const Bytes frame = make_frame(sides, make_query("www.example.test", rrtype::kA));
    for (size_t bytes = 0; bytes < frame.size(); ++bytes) {
      EXPECT_EQ(fault_of(slice(frame, 0, bytes)), FrameFault::wrong_length) << bytes;
    }
  }
}

// One changed header field, and the fault that must result.
struct Odd {
  const char* what;
  bool v6;
  size_t at;
  uint16_t value;
  FrameFault fault;
};

TEST(XdpFrame, OddHeadersAreRefused) {
  const Odd odds[] = {
      {"a VLAN tag", false, 12, 0x8100, FrameFault::not_plain_udp},
      {"ARP", false, 12, 0x0806, FrameFault::not_plain_udp},
      {"options", false, 14, 0x4600, FrameFault::not_plain_udp},
      {"a header of four words", false, 14, 0x4400, FrameFault::not_plain_udp},
      {"IPv6 in an IPv4 frame", false, 14, 0x6500, FrameFault::not_plain_udp},
      {"more fragments", false, 20, 0x2000, FrameFault::not_plain_udp},
      {"a later fragment", false, 20, 0x0001, FrameFault::not_plain_udp},
      {"the reserved bit", false, 20, 0x8000, FrameFault::not_plain_udp},
      {"TCP", false, 22, 0x4006, FrameFault::not_plain_udp},
      {"a total length of 19", false, 16, 19, FrameFault::wrong_length},
      {"a total length of 27", false, 16, 27, FrameFault::wrong_length},
      {"more than the frame", false, 16, 2'000, FrameFault::wrong_length},
      {"UDP shorter than IP says", false, 38, 20, FrameFault::wrong_length},
      {"UDP longer than IP says", false, 38, 60'000, FrameFault::wrong_length},
      {"UDP of seven bytes", false, 38, 7, FrameFault::wrong_length},
      {"port 0", false, 34, 0, FrameFault::source_port_zero},
      {"version 4 in an IPv6 frame", true, 14, 0x4500, FrameFault::not_plain_udp},
      {"a hop-by-hop header", true, 20, 0x0040, FrameFault::not_plain_udp},
      {"a fragment", true, 20, 0x2c40, FrameFault::not_plain_udp},
      {"no payload", true, 18, 0, FrameFault::wrong_length},
      {"a payload of seven", true, 18, 7, FrameFault::wrong_length},
      {"more than the frame", true, 18, 1'400, FrameFault::wrong_length},
      {"UDP shorter than IP says", true, 58, 20, FrameFault::wrong_length},
      {"port 0", true, 54, 0, FrameFault::source_port_zero},
  };
  for (const Odd& odd : odds) {
    Bytes frame = make_frame(odd.v6 ? kV6Sides : Sides{}, make_query("www.example.test", rrtype::kA));
    put_u16(frame, odd.at, odd.value);
    if (!odd.v6) seal_ipv4(frame);
    EXPECT_EQ(fault_of(frame), odd.fault) << odd.what << (odd.v6 ? ", IPv6" : ", IPv4");
  }
}

TEST(XdpFrame, ADamagedIpv4HeaderIsRefused) {
  Bytes frame = make_frame(Sides{}, make_query("www.example.test", rrtype::kA));
  frame[26] ^= 1;
  EXPECT_EQ(fault_of(frame), FrameFault::wrong_checksum);
}

TEST(XdpFrame, ADamagedDatagramIsRefusedWhereverItsBitFlips) {
  for (const Sides& sides : {Sides{}, kV6Sides}) {
    Bytes frame = make_frame(sides, make_query("www.example.test", rrtype::kA));
    seal_udp(frame);
    ASSERT_EQ(fault_of(frame), FrameFault::none);
    const size_t udp = sides.client == Sides{}.client ? 34 : 54;
    for (size_t at = udp; at < frame.size(); ++at) {
      if (at == udp + 4 || at == udp + 5) continue;  // then its length contradicts IP's
      for (int bit = 0; bit < 8; ++bit) {
        Bytes damaged = frame;
        damaged[at] ^= static_cast<uint8_t>(1 << bit);
        EXPECT_EQ(fault_of(damaged), FrameFault::wrong_udp_checksum) << sides.client << " byte " << at;
      }
    }
  }
  // Only this checksum protects IPv6's addresses (RFC 8200 §8.1).
  Bytes frame = make_frame(kV6Sides, make_query("www.example.test", rrtype::kA));
  seal_udp(frame);
  frame[37] ^= 1;
  EXPECT_EQ(fault_of(frame), FrameFault::wrong_udp_checksum);
}

TEST(XdpFrame, ADatagramWithoutAChecksumIsTakenOverIpv4Alone) {
  for (const auto& [sides, fault] :
       {std::pair(Sides{}, FrameFault::none), std::pair(kV6Sides, FrameFault::wrong_udp_checksum)}) {
    Bytes frame = make_frame(sides, make_query("www.example.test", rrtype::kA));
    put_u16(frame, (sides.client == Sides{}.client ? 34 : 54) + 6, 0);
    EXPECT_EQ(fault_of(frame), fault) << sides.client;
  }
}

TEST(XdpFrame, AChecksumThatIsOnlyHalfMadeByAVethIsTaken) {
  for (const Sides& sides : {Sides{}, kV6Sides}) {
    Bytes frame = make_frame(sides, make_query("www.example.test", rrtype::kA));
    EXPECT_EQ(fault_of(frame), FrameFault::none);
    ++frame[(sides.client == Sides{}.client ? 34 : 54) + 7];
    EXPECT_EQ(fault_of(frame), FrameFault::wrong_udp_checksum);
  }
}

}  // namespace tidegate::dns::test::xdp_frame_test
