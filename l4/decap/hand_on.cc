// SPDX-License-Identifier: Apache-2.0
#include "l4/decap/hand_on.h"

#include <fmt/format.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "l4/wire.h"

namespace tidegate::l4 {
namespace {

constexpr size_t kPlainGueBytes = 4;
constexpr uint8_t kInnerIp4 = 4, kInnerIp6 = 41;

}  // namespace

Result<HandOn> HandOn::open(std::vector<Cidr> peers, uint16_t gue_port) {
  Result<OwnConnections> own = OwnConnections::open();
  if (!own) return own.error();
  UniqueFd ip4(::socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  UniqueFd ip6(::socket(AF_INET6, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!ip4 && !ip6) return fail(fmt::format("socket to other backends: {}", std::strerror(errno)));
  // The forwarder sends only packets that fit the paths to both backends, if the document names the MTUs. The path
  // between the backends may still be narrower. Then the outer packet is fragmented.
  const int ip4_cut = IP_PMTUDISC_DONT, ip6_cut = IPV6_PMTUDISC_DONT;
  ::setsockopt(ip4.get(), IPPROTO_IP, IP_MTU_DISCOVER, &ip4_cut, sizeof ip4_cut);
  ::setsockopt(ip6.get(), IPPROTO_IPV6, IPV6_MTU_DISCOVER, &ip6_cut, sizeof ip6_cut);
  return HandOn(std::move(peers), gue_port, *std::move(own), std::move(ip4), std::move(ip6));
}

// The address that ends with these two bytes and is in one of the prefixes of --peer. A prefix shorter than /16 may
// have several.
SecondHop HandOn::named_by_id(uint16_t id, DecapReason& reason) const {
  constexpr uint8_t kHalf = 16;
  SecondHop hop;
  reason = DecapReason::second_hop_not_allowed;
  for (const Cidr& peer : peers_) {
    if (!peer.base.is_v4()) continue;
    IpAddress address = peer.base;
    address.bytes[2] = static_cast<uint8_t>(id >> 8);
    address.bytes[3] = static_cast<uint8_t>(id & 0xff);
    if (peer.prefix >= kHalf && !peer.contains(address)) continue;
    if (peer.prefix < kHalf || (hop.kind == SecondHopKind::named && hop.address != address)) {
      reason = DecapReason::second_hop_ambiguous;
      return {};
    }
    hop = {SecondHopKind::named, address};
  }
  return hop;
}

HandOn::Decision HandOn::decide(const Unwrapped& inside, uint8_t* packet, uint64_t now_ns) {
  SecondHop hop = read_second_hop(inside.private_data, inside.private_bytes);
  if (hop.kind == SecondHopKind::malformed) return {Fate::refused, DecapReason::second_hop_malformed};
  if (hop.kind == SecondHopKind::none && inside.id == 0) return {};
  const std::optional<TcpEnds> ends = ends_of_continued_tcp(packet, inside.bytes);
  if (!ends || own_.has(*ends, now_ns)) return {};
  if (inside.id != 0) {
    DecapReason reason = DecapReason::none;
    hop = named_by_id(inside.id, reason);
    if (hop.kind != SecondHopKind::named) return {Fate::refused, reason};
  }
  if (!is_peer(hop.address)) return {Fate::refused, DecapReason::second_hop_not_allowed};
  if (!send(hop.address, packet, inside.bytes)) return {Fate::refused, DecapReason::second_hop_unsent};
  return {Fate::handed_on};
}

bool HandOn::send(const IpAddress& to, uint8_t* packet, size_t bytes) const {
  const bool inner4 = packet[0] >> 4 == 4;
  // The congestion mark of the outer header is already in the packet (RFC 6040 §4.2).
  const int traffic_class = inner4 ? packet[1] : load_be16(packet) >> 4 & 0xff;
  uint8_t* gue = packet - kPlainGueBytes;
  std::memset(gue, 0, kPlainGueBytes);
  gue[1] = inner4 ? kInnerIp4 : kInnerIp6;
  sockaddr_storage storage{};
  const Endpoint endpoint{to, gue_port_};
  iovec part = {gue, kPlainGueBytes + bytes};
  msghdr message{};
  message.msg_name = &storage;
  message.msg_namelen = endpoint.to_sockaddr(storage);
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  alignas(cmsghdr) uint8_t beside[CMSG_SPACE(sizeof(int))] = {};
  message.msg_control = beside;
  message.msg_controllen = sizeof beside;
  cmsghdr* tos = CMSG_FIRSTHDR(&message);
  tos->cmsg_level = to.is_v4() ? IPPROTO_IP : IPPROTO_IPV6;
  tos->cmsg_type = to.is_v4() ? IP_TOS : IPV6_TCLASS;
  tos->cmsg_len = CMSG_LEN(sizeof traffic_class);
  std::memcpy(CMSG_DATA(tos), &traffic_class, sizeof traffic_class);
  return ::sendmsg((to.is_v4() ? ip4_ : ip6_).get(), &message, 0) == static_cast<ssize_t>(kPlainGueBytes + bytes);
}

}  // namespace tidegate::l4
