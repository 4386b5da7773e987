// SPDX-License-Identifier: Apache-2.0
#include "core/forwarded_for.h"

#include <gtest/gtest.h>

#include <string>

namespace tidegate::forwarded_for_test {

TEST(ForwardedHop, IsReadAsProxiesWriteIt) {
  const std::pair<const char*, const char*> forms[] = {
      {"192.0.2.1", "192.0.2.1"},
      {" 192.0.2.1\t", "192.0.2.1"},
      {"192.0.2.1:51234", "192.0.2.1"},
      {"2001:db8::1", "2001:db8::1"},
      {"2001:DB8:0:0::1", "2001:db8::1"},
      {"[2001:db8::1]", "2001:db8::1"},
      {"[2001:db8::1]:443", "2001:db8::1"},
      {"::ffff:192.0.2.1", "192.0.2.1"},
      {"[::ffff:192.0.2.1]:80", "192.0.2.1"},
      {"::", "::"},
  };
  for (const auto& [text, address] : forms) {
    const std::optional<IpAddress> hop = parse_forwarded_hop(text);
    ASSERT_TRUE(hop) << text;
    EXPECT_EQ(hop->to_string(), address) << text;
  }
}

TEST(ForwardedHop, IsNothingWhereItIsNoAddress) {
  for (const char* text : {"",
                           " ",
                           "unknown",
                           "_hidden",
                           "unix:",
                           "192.0.2.1:",
                           "192.0.2.1:http",
                           "192.0.2.1:123456",
                           "192.0.2.1 x",
                           "192.0.2.256",
                           "[192.0.2.1]",
                           "[2001:db8::1",
                           "2001:db8::1]",
                           "[2001:db8::1]443",
                           "[2001:db8::1]:",
                           "[]",
                           "[]:80",
                           ":80",
                           "\"[2001:db8::1]:443\"",
                           "for=192.0.2.1",
                           "fe80::1%eth0",
                           "1",
                           "0x7f.1"}) {
    EXPECT_FALSE(parse_forwarded_hop(text)) << text;
  }
}

class Walk : public testing::Test {
 protected:
  std::string client(const std::string& peer, const std::vector<std::string>& fields) {
    ForwardedForWalk walk(*IpAddress::parse(peer), trusted_);
    for (auto field = fields.rbegin(); field != fields.rend(); ++field) walk.take(*field);
    return walk.client().to_string();
  }
  const std::vector<Cidr> trusted_{*Cidr::parse("10.0.0.0/8"), *Cidr::parse("fd10::/64")};
};

TEST_F(Walk, GoesLeftAsLongAsTheHopsAreTrusted) {
  EXPECT_EQ(client("203.0.113.1", {"6.6.6.6"}), "203.0.113.1") << "the peer itself is not";
  EXPECT_EQ(client("10.0.0.1", {}), "10.0.0.1");
  EXPECT_EQ(client("10.0.0.1", {"6.6.6.6, 203.0.113.9, 10.0.0.2"}), "203.0.113.9");
  EXPECT_EQ(client("10.0.0.1", {"6.6.6.6, 203.0.113.9:51234, [fd10::2]:80"}), "203.0.113.9");
  EXPECT_EQ(client("10.0.0.1", {"6.6.6.6", "203.0.113.7"}), "203.0.113.7") << "the last field is the nearest hop's";
  EXPECT_EQ(client("10.0.0.1", {"203.0.113.7", "10.0.0.3, 10.0.0.2"}), "203.0.113.7");
  EXPECT_EQ(client("10.0.0.1", {"10.0.0.3, 10.0.0.2"}), "10.0.0.3") << "all are: the first of them";
}

TEST_F(Walk, EndsAtTheHopThatWroteWhatCannotBeRead) {
  for (const char* unreadable : {"unknown", "_hidden", "", " ", "unix:", "nonsense", "\"203.0.113.9\""}) {
    EXPECT_EQ(client("10.0.0.1", {"6.6.6.6, " + std::string(unreadable)}), "10.0.0.1") << unreadable;
    EXPECT_EQ(client("10.0.0.1", {"6.6.6.6, " + std::string(unreadable) + ", 10.0.0.2"}), "10.0.0.2") << unreadable;
    EXPECT_EQ(client("10.0.0.1", {"6.6.6.6", unreadable}), "10.0.0.1") << unreadable;
  }
}

TEST_F(Walk, AQuoteOfTheClientsHidesNoComma) {
  EXPECT_EQ(client("10.0.0.1", {"\"6.6.6.6, 203.0.113.9"}), "203.0.113.9");
  EXPECT_EQ(client("10.0.0.1", {"\"6.6.6.6", "\", 203.0.113.9"}), "203.0.113.9");
}

}  // namespace tidegate::forwarded_for_test
