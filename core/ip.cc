// SPDX-License-Identifier: Apache-2.0
#include "core/ip.h"

#include <arpa/inet.h>

#include <charconv>
#include <cstring>

namespace tidegate {
namespace {

template <class T>
std::optional<T> parse_number(std::string_view text, T max) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size() || text.empty() || value > max) return std::nullopt;
  return value;
}

}  // namespace

std::optional<IpAddress> IpAddress::parse(std::string_view text) {
  char buffer[INET6_ADDRSTRLEN + 1];
  if (text.empty() || text.size() >= sizeof buffer || text.find('\0') != text.npos) return std::nullopt;
  std::memcpy(buffer, text.data(), text.size());
  buffer[text.size()] = '\0';
  IpAddress address;
  if (::inet_pton(AF_INET, buffer, address.bytes.data()) == 1) return address;
  if (::inet_pton(AF_INET6, buffer, address.bytes.data()) == 1) {
    address.family = Family::v6;
    return address;
  }
  return std::nullopt;
}

IpAddress IpAddress::v4(uint32_t address_be) {
  IpAddress address;
  std::memcpy(address.bytes.data(), &address_be, 4);
  return address;
}

IpAddress IpAddress::v6(const void* sixteen_bytes) {
  IpAddress address;
  address.family = Family::v6;
  std::memcpy(address.bytes.data(), sixteen_bytes, 16);
  return address;
}

uint32_t IpAddress::v4_be() const {
  uint32_t value;
  std::memcpy(&value, bytes.data(), 4);
  return value;
}

IpAddress IpAddress::unmapped() const {
  static constexpr uint8_t kMappedPrefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
  if (is_v4() || std::memcmp(bytes.data(), kMappedPrefix, sizeof kMappedPrefix) != 0) return *this;
  IpAddress address;
  std::memcpy(address.bytes.data(), bytes.data() + 12, 4);
  return address;
}

std::string IpAddress::to_string() const {
  char buffer[INET6_ADDRSTRLEN];
  ::inet_ntop(is_v4() ? AF_INET : AF_INET6, bytes.data(), buffer, sizeof buffer);
  return buffer;
}

size_t IpAddress::write_text(char* out) const {
  ::inet_ntop(is_v4() ? AF_INET : AF_INET6, bytes.data(), out, kTextBytes);
  return std::strlen(out);
}

Cidr Cidr::of(const IpAddress& address, uint8_t prefix) {
  Cidr cidr{address, prefix};
  for (size_t i = 0; i < 16; ++i) {
    const int kept_bits = prefix - static_cast<int>(i) * 8;
    if (kept_bits >= 8) continue;
    cidr.base.bytes[i] &= kept_bits <= 0 ? uint8_t{0} : static_cast<uint8_t>(0xff00 >> kept_bits);
  }
  return cidr;
}

std::optional<Cidr> Cidr::parse(std::string_view text) {
  const size_t slash = text.find('/');
  const auto address = IpAddress::parse(text.substr(0, slash));
  if (!address) return std::nullopt;
  if (slash == std::string_view::npos) return Cidr{*address, address->max_prefix()};
  const auto prefix = parse_number<uint8_t>(text.substr(slash + 1), address->max_prefix());
  if (!prefix) return std::nullopt;
  const Cidr cidr = of(*address, *prefix);
  if (cidr.base != *address) return std::nullopt;
  return cidr;
}

bool Cidr::contains(const IpAddress& address) const {
  if (address.family != base.family) return false;
  return of(address, prefix).base == base;
}

std::string Cidr::to_string() const { return base.to_string() + "/" + std::to_string(prefix); }

std::optional<Endpoint> Endpoint::parse(std::string_view text) {
  const size_t colon = text.rfind(':');
  if (colon == std::string_view::npos) return std::nullopt;
  std::string_view host = text.substr(0, colon);
  const bool bracketed = host.size() > 2 && host.front() == '[' && host.back() == ']';
  if (bracketed) host = host.substr(1, host.size() - 2);
  const auto address = IpAddress::parse(host);
  const auto port = parse_number<uint16_t>(text.substr(colon + 1), UINT16_MAX);
  if (!address || !port || address->is_v6() != bracketed) return std::nullopt;
  return Endpoint{*address, *port};
}

Endpoint Endpoint::from(const sockaddr_storage& storage) {
  if (storage.ss_family == AF_INET) {
    sockaddr_in in;
    std::memcpy(&in, &storage, sizeof in);
    return {IpAddress::from(in.sin_addr), ntohs(in.sin_port)};
  }
  if (storage.ss_family == AF_INET6) {
    sockaddr_in6 in6;
    std::memcpy(&in6, &storage, sizeof in6);
    return {IpAddress::from(in6.sin6_addr), ntohs(in6.sin6_port)};
  }
  return {};
}

socklen_t Endpoint::to_sockaddr(sockaddr_storage& storage) const {
  storage = {};
  if (address.is_v4()) {
    sockaddr_in in{};
    in.sin_family = AF_INET;
    in.sin_port = htons(port);
    in.sin_addr.s_addr = address.v4_be();
    std::memcpy(&storage, &in, sizeof in);
    return sizeof in;
  }
  sockaddr_in6 in6{};
  in6.sin6_family = AF_INET6;
  in6.sin6_port = htons(port);
  std::memcpy(&in6.sin6_addr, address.bytes.data(), 16);
  std::memcpy(&storage, &in6, sizeof in6);
  return sizeof in6;
}

std::string Endpoint::to_string() const {
  const std::string host = address.to_string();
  return (address.is_v6() ? "[" + host + "]" : host) + ":" + std::to_string(port);
}

}  // namespace tidegate
