// SPDX-License-Identifier: Apache-2.0
#include "l7/wire/proxy_protocol.h"

#include <gtest/gtest.h>

namespace tidegate::l7::proxy_protocol_test {

using Status = ProxyHeader::Status;

ProxyAddresses addresses(const char* source, const char* destination) {
  return {*Endpoint::parse(source), *Endpoint::parse(destination)};
}

TEST(ProxyProtocol, BothVersionsAndFamiliesComeBackAsTheyWereWritten) {
  for (const ProxyProtocol version : {ProxyProtocol::v1, ProxyProtocol::v2}) {
    for (const ProxyAddresses& each :
         {addresses("192.0.2.1:56324", "198.51.100.2:443"), addresses("[2001:db8::1]:1", "[2001:db8:ffff::2]:65535")}) {
      const std::string header = write_proxy_header(version, each);
      const ProxyHeader read = parse_proxy_header(header + "GET / HTTP/1.1\r\n");
      ASSERT_EQ(read.status, Status::ok);
      EXPECT_EQ(read.bytes, header.size());
      ASSERT_TRUE(read.addresses);
      EXPECT_EQ(read.addresses->source, each.source);
      EXPECT_EQ(read.addresses->destination, each.destination);
    }
    const ProxyHeader own = parse_proxy_header(write_proxy_header(version, std::nullopt));
    EXPECT_EQ(own.status, Status::ok);
    EXPECT_FALSE(own.addresses);
  }
}

// The example bytes in HAProxy's document.
TEST(ProxyProtocol, WritesWhatTheStandardShows) {
  EXPECT_EQ(write_proxy_header(ProxyProtocol::v1, addresses("192.168.0.1:56324", "192.168.0.11:443")),
            "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n");
  const std::string v2 = write_proxy_header(ProxyProtocol::v2, addresses("127.0.0.1:258", "127.0.0.2:80"));
  EXPECT_EQ(v2, std::string("\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\1\x7f\0\0\2\1\2\0\x50", 28));
}

TEST(ProxyProtocol, TwoFamiliesAreOneInVersion2AndNoneInVersion1) {
  const ProxyAddresses mixed = addresses("192.0.2.1:1", "[2001:db8::1]:2");
  EXPECT_EQ(write_proxy_header(ProxyProtocol::v1, mixed), "PROXY UNKNOWN\r\n");
  const ProxyHeader read = parse_proxy_header(write_proxy_header(ProxyProtocol::v2, mixed));
  ASSERT_TRUE(read.addresses);
  EXPECT_EQ(read.addresses->source, mixed.source) << "as IPv4 again";
}

TEST(ProxyProtocol, AnyBeginningOfAHeaderIsIncomplete) {
  for (const ProxyProtocol version : {ProxyProtocol::v1, ProxyProtocol::v2}) {
    const std::string header = write_proxy_header(version, addresses("[2001:db8::1]:1", "[2001:db8::2]:2"));
    for (size_t bytes = 0; bytes < header.size(); ++bytes) {
      EXPECT_EQ(parse_proxy_header(header.substr(0, bytes)).status, Status::incomplete) << bytes;
    }
  }
}

TEST(ProxyProtocol, RefusesWhatIsNoHeader) {
  for (const char* bad : {
           "GET / HTTP/1.1\r\n",
           "PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n",
           "PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n",
           "PROXY TCP4 192.0.2.1 192.0.2.2 1 65536\r\n",
           "PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n",
           "PROXY TCP4 192.0.2.1 192.0.2.2 -1 2\r\n",
           "PROXY TCP4 192.0.2.1  192.0.2.2 1 2\r\n",
           "PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n",
           "PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n",
           "PROXY TCP4 192.0.2.256 192.0.2.2 1 2\r\n",
           "PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n",
           "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\rX",
           "PROXY\tTCP4 ",
       }) {
    EXPECT_EQ(parse_proxy_header(bad).status, Status::bad) << bad;
  }
  EXPECT_EQ(parse_proxy_header("PROXY UNKNOWN " + std::string(100, 'x')).status, Status::bad) << "no end in 107 bytes";
  const std::string signature("\r\n\r\n\0\r\nQUIT\n", 12);
  EXPECT_EQ(parse_proxy_header(signature + std::string("\x31\x11\0\x0c", 4)).status, Status::bad) << "version 3";
  EXPECT_EQ(parse_proxy_header(signature + std::string("\x22\x11\0\x0c", 4)).status, Status::bad) << "command";
  EXPECT_EQ(parse_proxy_header(signature + std::string("\x21\x11\xff\xff", 4)).status, Status::bad) << "too long";
  EXPECT_EQ(parse_proxy_header(signature + std::string("\x21\x11\0\x04zzzz", 8)).status, Status::bad) << "too short";
}

TEST(ProxyProtocol, SkipsWhatVersion2AddsAndFamiliesThatAreNotIp) {
  const std::string signature("\r\n\r\n\0\r\nQUIT\n", 12);
  const ProxyHeader with_tlv =
      parse_proxy_header(signature + std::string("\x21\x11\0\x10\x7f\0\0\1\x7f\0\0\2\1\2\0\x50\4\0\1x", 20) + "rest");
  EXPECT_EQ(with_tlv.status, Status::ok);
  EXPECT_EQ(with_tlv.bytes, 32u);
  EXPECT_EQ(with_tlv.addresses->source.port, 258);
  const ProxyHeader of_unix = parse_proxy_header(signature + std::string("\x21\x31\0\x02zz", 6));
  EXPECT_EQ(of_unix.status, Status::ok);
  EXPECT_FALSE(of_unix.addresses);
}

}  // namespace tidegate::l7::proxy_protocol_test
