// SPDX-License-Identifier: Apache-2.0
#include "l7/wire/proxy_protocol.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>

#include "l7/limits.h"

namespace tidegate::l7 {
namespace {

using Status = ProxyHeader::Status;

constexpr std::string_view kSignature2{"\r\n\r\n\0\r\nQUIT\n", 12};
constexpr std::string_view kSignature1 = "PROXY ";
constexpr size_t kFixedBytes2 = 16;
constexpr size_t kMostBytes1 = 107;  // includes the CRLF
constexpr uint8_t kLocal = 0x20, kProxied = 0x21;
constexpr uint8_t kTcp4 = 0x11, kTcp6 = 0x21;

ProxyHeader bad() { return {Status::bad, 0, std::nullopt}; }

bool begins_like(std::string_view bytes, std::string_view signature) {
  return bytes.substr(0, signature.size()) == signature.substr(0, bytes.size());
}

// A port without leading zeros.
std::optional<uint16_t> read_port(std::string_view text) {
  uint16_t port = 0;
  if (text.empty() || text.size() > 5 || (text[0] == '0' && text.size() > 1)) return std::nullopt;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return port;
}

// "TCP4 192.0.2.1 192.0.2.2 56324 443": one space between the words.
ProxyHeader parse_line(std::string_view line, size_t bytes) {
  std::array<std::string_view, 5> words;
  size_t count = 0;
  for (std::string_view left = line; count <= words.size(); ++count) {
    const size_t end = left.find(' ');
    if (count < words.size()) words[count] = left.substr(0, end);
    if (end == std::string_view::npos) break;
    left.remove_prefix(end + 1);
  }
  // The rest of such a line must be ignored.
  if (words[0] == "UNKNOWN") return {Status::ok, bytes, std::nullopt};
  const bool v4 = words[0] == "TCP4";
  if ((!v4 && words[0] != "TCP6") || count + 1 != words.size()) return bad();
  const std::optional<IpAddress> source = IpAddress::parse(words[1]), destination = IpAddress::parse(words[2]);
  const std::optional<uint16_t> source_port = read_port(words[3]), destination_port = read_port(words[4]);
  if (!source || !destination || !source_port || !destination_port) return bad();
  if (source->is_v4() != v4 || destination->is_v4() != v4) return bad();
  return {Status::ok, bytes,
          ProxyAddresses{{source->unmapped(), *source_port}, {destination->unmapped(), *destination_port}}};
}

ProxyHeader parse_version_1(std::string_view bytes) {
  const size_t end = bytes.substr(0, kMostBytes1).find('\r');
  if (end == std::string_view::npos) return bytes.size() >= kMostBytes1 ? bad() : ProxyHeader{};
  if (end + 1 == bytes.size()) return end + 2 > kMostBytes1 ? bad() : ProxyHeader{};
  if (bytes[end + 1] != '\n' || end + 2 > kMostBytes1) return bad();
  return parse_line(bytes.substr(kSignature1.size(), end - kSignature1.size()), end + 2);
}

uint16_t read_16(std::string_view at) {
  return static_cast<uint16_t>(static_cast<uint8_t>(at[0]) << 8 | static_cast<uint8_t>(at[1]));
}

Endpoint read_endpoint(std::string_view address, std::string_view port, bool v4) {
  Endpoint out;
  out.address.family = v4 ? IpAddress::Family::v4 : IpAddress::Family::v6;
  std::copy(address.begin(), address.end(), out.address.bytes.begin());
  out.address = out.address.unmapped();
  out.port = read_16(port);
  return out;
}

ProxyHeader parse_version_2(std::string_view bytes) {
  if (bytes.size() < kFixedBytes2) return {};
  const auto command = static_cast<uint8_t>(bytes[12]), family = static_cast<uint8_t>(bytes[13]);
  const size_t whole = kFixedBytes2 + read_16(bytes.substr(14));
  if ((command != kLocal && command != kProxied) || whole > kProxyHeaderBytes) return bad();
  if (bytes.size() < whole) return {};
  // As the standard says, the connection's own addresses are used for families that are not TCP over IP.
  if (command == kLocal || (family != kTcp4 && family != kTcp6)) return {Status::ok, whole, std::nullopt};
  const bool v4 = family == kTcp4;
  const size_t each = v4 ? 4 : 16;
  const std::string_view block = bytes.substr(kFixedBytes2, whole - kFixedBytes2);
  if (block.size() < 2 * each + 4) return bad();
  return {Status::ok, whole,
          ProxyAddresses{read_endpoint(block.substr(0, each), block.substr(2 * each), v4),
                         read_endpoint(block.substr(each, each), block.substr(2 * each + 2), v4)}};
}

void append_16(std::string& out, size_t value) {
  out += static_cast<char>(value >> 8 & 0xff);
  out += static_cast<char>(value & 0xff);
}

// Writes IPv4 as ::ffff:a.b.c.d if the other side is IPv6.
void append_address(std::string& out, const IpAddress& address, bool as_v6) {
  if (as_v6 && address.is_v4()) out.append("\0\0\0\0\0\0\0\0\0\0\xff\xff", 12);
  out.append(reinterpret_cast<const char*>(address.bytes.data()), address.size());
}

}  // namespace

ProxyHeader parse_proxy_header(std::string_view bytes) {
  if (bytes.empty()) return {};
  if (begins_like(bytes, kSignature2))
    return bytes.size() < kSignature2.size() ? ProxyHeader{} : parse_version_2(bytes);
  if (begins_like(bytes, kSignature1))
    return bytes.size() < kSignature1.size() ? ProxyHeader{} : parse_version_1(bytes);
  return bad();
}

std::string write_proxy_header(ProxyProtocol version, const std::optional<ProxyAddresses>& addresses) {
  const bool mixed = addresses && addresses->source.address.is_v4() != addresses->destination.address.is_v4();
  if (version == ProxyProtocol::v1) {
    if (!addresses || mixed) return "PROXY UNKNOWN\r\n";
    return fmt::format("PROXY TCP{} {} {} {} {}\r\n", addresses->source.address.is_v4() ? 4 : 6,
                       addresses->source.address.to_string(), addresses->destination.address.to_string(),
                       addresses->source.port, addresses->destination.port);
  }
  std::string out(kSignature2);
  if (!addresses) {
    out += static_cast<char>(kLocal);
    out += '\0';
    append_16(out, 0);
    return out;
  }
  const bool as_v6 = mixed || addresses->source.address.is_v6();
  out += static_cast<char>(kProxied);
  out += static_cast<char>(as_v6 ? kTcp6 : kTcp4);
  append_16(out, as_v6 ? 36 : 12);
  append_address(out, addresses->source.address, as_v6);
  append_address(out, addresses->destination.address, as_v6);
  append_16(out, addresses->source.port);
  append_16(out, addresses->destination.port);
  return out;
}

}  // namespace tidegate::l7
