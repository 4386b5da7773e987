// SPDX-License-Identifier: Apache-2.0
// The program, which the kernel itself runs over single frames. Without the right to load programs these tests are
// skipped.
#include "dns/xdp/program.h"

#include <bpf/bpf.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "dns/xdp/interface.h"
#include "tests/unit/dns/frames.h"
#include "tests/unit/dns/support.h"

namespace tidegate::dns::test::xdp_program_test {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<Endpoint> endpoints(std::initializer_list<const char*> texts) {
  std::vector<Endpoint> list;
  for (const char* text : texts) list.push_back(*Endpoint::parse(text));
  return list;
}

class Program : public ::testing::Test {
 protected:
  void SetUp() override {
    // A map of interfaces instead of sockets: "to lo" is an equally good target, and it needs no real queue.
    targets_.reset(bpf_map_create(BPF_MAP_TYPE_DEVMAP, "test", 4, 4, 1, nullptr));
    if (!targets_) GTEST_SKIP() << "no right to load programs into the kernel";
    const uint32_t queue = 0, loopback = 1;
    ASSERT_EQ(bpf_map_update_elem(targets_.get(), &queue, &loopback, 0), 0);
    load(endpoints({"192.0.2.53:53", "192.0.2.54:5353", "[2001:db8::53]:53", "[2001:db8::54]:5353"}));
  }
  void load(const std::vector<Endpoint>& listen) {
    const auto code = assemble_xdp({kServerMac, listen}, targets_.get());
    ASSERT_TRUE(code) << code.error().message;
    auto program = load_xdp(*code);
    ASSERT_TRUE(program) << program.error().message;
    program_ = *std::move(program);
  }
  // True if the program takes the frame; otherwise the frame goes to the kernel.
  bool takes(const Bytes& frame) {
    bpf_test_run_opts options{};
    options.sz = sizeof options;
    Bytes out(4'096);
    options.data_in = frame.data();
    options.data_size_in = static_cast<uint32_t>(frame.size());
    options.data_out = out.data();
    options.data_size_out = static_cast<uint32_t>(out.size());
    options.repeat = 1;
    EXPECT_EQ(bpf_prog_test_run_opts(program_.get(), &options), 0);
    EXPECT_TRUE(options.retval == XDP_PASS || options.retval == XDP_REDIRECT) << options.retval;
    out.resize(options.data_size_out);
    EXPECT_EQ(out, frame) << "nothing is changed";
    return options.retval == XDP_REDIRECT;
  }
  static Bytes frame_to(const std::string& client, const Endpoint& server) {
    return make_frame({client, server.address.to_string(), 40'000, server.port}, make_query("www.example.test", 1));
  }

  UniqueFd targets_, program_;
};

TEST_F(Program, TakesQueriesToWhatIsListenedOnAndNothingElse) {
  for (const char* taken : {"192.0.2.53:53", "192.0.2.54:5353"}) {
    EXPECT_TRUE(takes(frame_to("198.51.100.7", *Endpoint::parse(taken)))) << taken;
  }
  for (const char* taken : {"[2001:db8::53]:53", "[2001:db8::54]:5353"}) {
    EXPECT_TRUE(takes(frame_to("2001:db8:7::7", *Endpoint::parse(taken)))) << taken;
  }
  for (const char* passed : {"192.0.2.53:5353", "192.0.2.54:53", "192.0.2.55:53", "192.0.2.53:54"}) {
    EXPECT_FALSE(takes(frame_to("198.51.100.7", *Endpoint::parse(passed)))) << passed;
  }
  for (const char* passed : {"[2001:db8::53]:5353", "[2001:db8::55]:53", "[2001:db9::53]:53", "[2001:db8:1::53]:53"}) {
    EXPECT_FALSE(takes(frame_to("2001:db8:7::7", *Endpoint::parse(passed)))) << passed;
  }
}

TEST_F(Program, LeavesSourcesThatNobodyHasToTheKernel) {
  for (const char* source : {"0.1.2.3", "127.0.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255"}) {
    EXPECT_FALSE(takes(frame_to(source, *Endpoint::parse("192.0.2.53:53")))) << source;
  }
  for (const char* source : {"::", "::1", "::ffff:192.0.2.1", "fe80::1", "ff02::1"}) {
    Bytes frame = frame_to("2001:db8:7::7", *Endpoint::parse("[2001:db8::53]:53"));
    const IpAddress address = *IpAddress::parse(source);
    std::copy(address.bytes.begin(), address.bytes.end(), frame.begin() + 22);
    EXPECT_FALSE(takes(frame)) << source;
  }
  EXPECT_TRUE(takes(frame_to("fd00::1", *Endpoint::parse("[2001:db8::53]:53"))));
  EXPECT_TRUE(takes(frame_to("223.255.255.255", *Endpoint::parse("192.0.2.53:53"))));
}

TEST_F(Program, LeavesOddFramesToTheKernel) {
  struct Odd {
    const char* what;
    size_t at;
    uint16_t value;
  };
  const auto expect_passed = [&](bool v6, std::initializer_list<Odd> odds) {
    for (const Odd& odd : odds) {
      Bytes frame = make_frame(v6 ? kV6Sides : Sides{}, make_query("www.example.test", 1));
      ASSERT_TRUE(takes(frame));
      put_u16(frame, odd.at, odd.value);
      EXPECT_FALSE(takes(frame)) << odd.what;
    }
  };
  expect_passed(false, {{"another MAC", 0, 0x0300},
                        {"a broadcast's end", 4, 0xffff},
                        {"a VLAN tag", 12, 0x8100},
                        {"ARP", 12, 0x0806},
                        {"options", 14, 0x4600},
                        {"more fragments", 20, 0x2000},
                        {"a later fragment", 20, 0x00b9},
                        {"TCP", 22, 0x4006},
                        {"a total length of 19", 16, 19},
                        {"a total length of 0", 16, 0},
                        {"more than the frame", 16, 1'500},
                        {"UDP shorter than IP says", 38, 20},
                        {"UDP of seven bytes", 38, 7},
                        {"port 0", 34, 0}});
  expect_passed(true, {{"version 4", 14, 0x4500},
                       {"a hop-by-hop header", 20, 0x0040},
                       {"a fragment", 20, 0x2c40},
                       {"no payload", 18, 0},
                       {"more than the frame", 18, 1'400},
                       {"UDP longer than IP says", 58, 200},
                       {"port 0", 54, 0}});
}

TEST_F(Program, LeavesLengthsThatAgreeOnTooLittleOrTooMuchToTheKernel) {
  Bytes frame = make_frame(Sides{}, Bytes(30));
  put_u16(frame, 16, 27);  // seven bytes of UDP, as both headers say
  put_u16(frame, 38, 7);
  EXPECT_FALSE(takes(frame));
  EXPECT_TRUE(takes(make_frame(Sides{}, Bytes(kMaxQueryFrameBytes - kV4Headers))));
  EXPECT_FALSE(takes(make_frame(Sides{}, Bytes(kMaxQueryFrameBytes - kV4Headers + 1))));
  EXPECT_TRUE(takes(make_frame(kV6Sides, Bytes(kMaxQueryFrameBytes - kV6Headers))));
}

TEST_F(Program, NeverReadsBehindACutFrame) {
  for (const Sides& sides : {Sides{}, kV6Sides}) {
    const Bytes frame = make_frame(sides, make_query("www.example.test", 1));
    for (size_t bytes = kEthernet; bytes < frame.size(); ++bytes) {
      EXPECT_FALSE(takes(Bytes(frame.begin(), frame.begin() + static_cast<ptrdiff_t>(bytes)))) << bytes;
    }
  }
}

TEST_F(Program, HoldsHundredsOfAddresses) {
  std::vector<Endpoint> many;
  for (int i = 0; i < 500; ++i) {
    many.push_back(*Endpoint::parse("192.0." + std::to_string(i / 250) + "." + std::to_string(i % 250) + ":53"));
    many.push_back(*Endpoint::parse("[2001:db8::" + std::to_string(i) + "]:53"));
  }
  load(many);
  for (const size_t index : {0UL, 1UL, 500UL, 998UL, 999UL}) {
    EXPECT_TRUE(takes(frame_to(index % 2 == 0 ? "198.51.100.7" : "2001:db8:7::7", many[index]))) << index;
  }
  EXPECT_FALSE(takes(frame_to("198.51.100.7", *Endpoint::parse("192.0.2.1:53"))));
}

TEST(XdpProgram, RefusesMoreAddressesThanJumpsCanCross) {
  const auto refused = assemble_xdp({kServerMac, std::vector<Endpoint>(20'000, *Endpoint::parse("192.0.2.1:53"))}, 3);
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, HasSubstr("20000 addresses"));
}

TEST(XdpInterface, AWildcardIsTheHostsAddressesAndNoneOfTheLinks) {
  const std::vector<IpAddress> host = {*IpAddress::parse("127.0.0.1"), *IpAddress::parse("192.0.2.1"),
                                       *IpAddress::parse("::1"), *IpAddress::parse("fe80::1"),
                                       *IpAddress::parse("2001:db8::1")};
  EXPECT_EQ(reachable_endpoints(endpoints({"0.0.0.0:53"}), host), endpoints({"192.0.2.1:53"}));
  EXPECT_EQ(reachable_endpoints(endpoints({"[::]:5353", "192.0.2.1:53", "0.0.0.0:53"}), host),
            endpoints({"[2001:db8::1]:5353", "192.0.2.1:53"}));
  EXPECT_THAT(reachable_endpoints(endpoints({"127.0.0.1:53", "[::1]:53", "[fe80::1]:53"}), host), ElementsAre());
}

TEST(XdpInterface, SaysWhyItCannotBeOpened) {
  const auto missing = XdpInterface::open("no-such-link", endpoints({"192.0.2.1:53"}));
  ASSERT_FALSE(missing);
  EXPECT_THAT(missing.error().message, HasSubstr("No such device"));
  const auto unreachable = XdpInterface::open("lo", endpoints({"127.0.0.1:53"}));
  ASSERT_FALSE(unreachable);
  EXPECT_THAT(unreachable.error().message, HasSubstr("no address"));
}

}  // namespace tidegate::dns::test::xdp_program_test
