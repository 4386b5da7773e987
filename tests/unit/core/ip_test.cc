// SPDX-License-Identifier: Apache-2.0
#include "core/ip.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>

#include <random>
#include <unordered_set>

namespace tidegate::ip_test {

IpAddress address(const char* text) { return IpAddress::parse(text).value(); }
Cidr cidr(const char* text) { return Cidr::parse(text).value(); }

TEST(IpAddress, ReadsAndWritesBothFamilies) {
  EXPECT_EQ(address("192.0.2.1").to_string(), "192.0.2.1");
  EXPECT_EQ(address("2001:DB8:0:0::1").to_string(), "2001:db8::1");
  EXPECT_EQ(address("192.0.2.1").v4_be(), htonl(0xc0000201));
  EXPECT_EQ(IpAddress::v4(htonl(0xc0000201)), address("192.0.2.1"));
}

TEST(IpAddress, RefusesWhatIsNotOne) {
  for (const char* text : {"", "1.2.3", "1.2.3.4.5", "256.0.0.1", "01.2.3.4", " 1.2.3.4", "1.2.3.4 ", ":::", "1::2::3",
                           "fe80::1%eth0", "[::1]", "12345::", "a.b.c.d"}) {
    EXPECT_FALSE(IpAddress::parse(text)) << text;
  }
  EXPECT_FALSE(IpAddress::parse(std::string_view("1.2.3.4\0x", 9)));
  EXPECT_FALSE(IpAddress::parse(std::string(100, '1')));
}

TEST(IpAddress, UnmapsOnlyMappedOnes) {
  EXPECT_EQ(address("::ffff:192.0.2.1").unmapped(), address("192.0.2.1"));
  EXPECT_EQ(address("::fffe:192.0.2.1").unmapped(), address("::fffe:192.0.2.1"));
  EXPECT_EQ(address("192.0.2.1").unmapped(), address("192.0.2.1"));
}

TEST(IpAddress, HashesAndComparesByFamilyAndBytes) {
  EXPECT_NE(address("0.0.0.0"), address("::"));
  const std::unordered_set<IpAddress> set{address("10.0.0.1"), address("10.0.0.1"), address("10.0.0.2")};
  EXPECT_EQ(set.size(), 2u);
}

TEST(Cidr, ReadsPrefixesAndBareAddresses) {
  EXPECT_EQ(cidr("10.0.0.0/8").to_string(), "10.0.0.0/8");
  EXPECT_EQ(cidr("10.1.2.3").to_string(), "10.1.2.3/32");
  EXPECT_EQ(cidr("2001:db8::/32").to_string(), "2001:db8::/32");
  EXPECT_EQ(cidr("0.0.0.0/0").to_string(), "0.0.0.0/0");
  EXPECT_EQ(Cidr::of(address("10.1.2.3"), 12).to_string(), "10.0.0.0/12");
}

TEST(Cidr, RefusesHostBitsAndBadLengths) {
  for (const char* text : {"10.0.0.1/8", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/-1", "10.0.0.0/8x", "::/129", "/8",
                           "10.0.0.0/256", "10.0.0.0/8/8"}) {
    EXPECT_FALSE(Cidr::parse(text)) << text;
  }
}

TEST(Cidr, ContainsWhatABitByBitComparisonSays) {
  std::mt19937 random(3);
  for (int i = 0; i < 20'000; ++i) {
    IpAddress base, other;
    base.family = other.family = random() % 2 == 0 ? IpAddress::Family::v4 : IpAddress::Family::v6;
    for (size_t b = 0; b < base.size(); ++b) {
      base.bytes[b] = static_cast<uint8_t>(random());
      other.bytes[b] = random() % 8 == 0 ? static_cast<uint8_t>(random()) : base.bytes[b];
    }
    const auto prefix = static_cast<uint8_t>(random() % (base.max_prefix() + 1u));
    bool same = true;
    for (size_t bit = 0; bit < prefix; ++bit) {
      const int shift = 7 - static_cast<int>(bit % 8);
      same = same && (base.bytes[bit / 8] >> shift & 1) == (other.bytes[bit / 8] >> shift & 1);
    }
    EXPECT_EQ(Cidr::of(base, prefix).contains(other), same) << base.to_string() << '/' << int{prefix};
  }
}

TEST(Cidr, OverlapsInEitherDirectionButNeverAcrossFamilies) {
  EXPECT_TRUE(cidr("10.0.0.0/8").overlaps(cidr("10.1.0.0/16")));
  EXPECT_TRUE(cidr("10.1.0.0/16").overlaps(cidr("10.0.0.0/8")));
  EXPECT_FALSE(cidr("10.0.0.0/16").overlaps(cidr("10.1.0.0/16")));
  EXPECT_FALSE(cidr("0.0.0.0/0").overlaps(cidr("::/0")));
}

TEST(Endpoint, ReadsAndWritesBothFamilies) {
  EXPECT_EQ(Endpoint::parse("192.0.2.1:80")->to_string(), "192.0.2.1:80");
  EXPECT_EQ(Endpoint::parse("[2001:db8::1]:65535")->to_string(), "[2001:db8::1]:65535");
  for (const char* text : {"192.0.2.1", "192.0.2.1:", "192.0.2.1:65536", "2001:db8::1:80", "[192.0.2.1]:80", "[::1]",
                           "[::1]80", "::1:80", "host:80", ":80", "192.0.2.1:+80"}) {
    EXPECT_FALSE(Endpoint::parse(text)) << text;
  }
}

TEST(Endpoint, SurvivesTheWayThroughASocketAddress) {
  for (const char* text : {"192.0.2.1:80", "[2001:db8::1]:443"}) {
    sockaddr_storage storage{};
    EXPECT_GT(Endpoint::parse(text)->to_sockaddr(storage), 0u);
    EXPECT_EQ(Endpoint::from(storage).to_string(), text);
  }
}

}  // namespace tidegate::ip_test
