// SPDX-License-Identifier: Apache-2.0
// IP addresses, prefixes and endpoints of both families as values. Bytes are in network order.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include <array>
#include <compare>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

namespace tidegate {

struct IpAddress {
  enum class Family : uint8_t { v4 = 4, v6 = 6 };
  Family family = Family::v4;
  std::array<uint8_t, 16> bytes{};  // IPv4 uses the first four; the others stay zero

  static std::optional<IpAddress> parse(std::string_view text);
  static IpAddress v4(uint32_t address_be);  // like in_addr::s_addr
  static IpAddress v6(const void* sixteen_bytes);
  static IpAddress from(const in_addr& address) { return v4(address.s_addr); }
  static IpAddress from(const in6_addr& address) { return v6(&address); }

  bool is_v4() const { return family == Family::v4; }
  bool is_v6() const { return family == Family::v6; }
  size_t size() const { return is_v4() ? 4 : 16; }
  uint8_t max_prefix() const { return is_v4() ? 32 : 128; }
  uint32_t v4_be() const;  // only for IPv4
  // ::ffff:a.b.c.d becomes a.b.c.d. Any other address is returned unchanged.
  IpAddress unmapped() const;
  std::string to_string() const;
  // Writes the text of to_string() into `out`, which needs kTextBytes bytes. Returns its length.
  static constexpr size_t kTextBytes = INET6_ADDRSTRLEN;
  size_t write_text(char* out) const;

  auto operator<=>(const IpAddress&) const = default;
};

struct Cidr {
  IpAddress base;  // host bits are zero
  uint8_t prefix = 0;

  // Parses "10.0.0.0/8". A bare address is a prefix of full length. Returns nullopt if host bits are set.
  static std::optional<Cidr> parse(std::string_view text);
  static Cidr of(const IpAddress& address, uint8_t prefix);  // clears the host bits
  bool contains(const IpAddress& address) const;
  bool overlaps(const Cidr& other) const { return contains(other.base) || other.contains(base); }
  std::string to_string() const;

  auto operator<=>(const Cidr&) const = default;
};

struct Endpoint {
  IpAddress address;
  uint16_t port = 0;  // host order

  // "192.0.2.1:80", "[2001:db8::1]:80"
  static std::optional<Endpoint> parse(std::string_view text);
  static Endpoint from(const sockaddr_storage& storage);
  // Returns the length written.
  socklen_t to_sockaddr(sockaddr_storage& storage) const;
  std::string to_string() const;

  auto operator<=>(const Endpoint&) const = default;
};

}  // namespace tidegate

template <>
struct std::hash<tidegate::IpAddress> {
  size_t operator()(const tidegate::IpAddress& a) const noexcept {
    return std::hash<std::string_view>{}({reinterpret_cast<const char*>(a.bytes.data()), a.size()});
  }
};
template <>
struct std::hash<tidegate::Endpoint> {
  size_t operator()(const tidegate::Endpoint& e) const noexcept {
    return std::hash<tidegate::IpAddress>{}(e.address) * 31 + e.port;
  }
};
