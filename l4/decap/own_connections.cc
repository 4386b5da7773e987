// SPDX-License-Identifier: Apache-2.0
#include "l4/decap/own_connections.h"

#include <fmt/format.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "core/clock.h"
#include "core/crypto.h"
#include "l4/wire.h"

namespace tidegate::l4 {
namespace {

constexpr size_t kTcpHeadBytes = 20;
constexpr uint8_t kSyn = 0x02, kAck = 0x10;

HashKey random_key() {
  const std::string bytes = random_bytes(sizeof(HashKey));
  HashKey key;
  std::memcpy(&key, bytes.data(), sizeof key);
  return key;
}

void copy_address(const IpAddress& address, __be32 (&out)[4]) {
  std::memcpy(out, address.bytes.data(), address.size());
}

}  // namespace

std::optional<TcpEnds> ends_of_continued_tcp(const uint8_t* packet, size_t bytes) {
  TcpEnds ends;
  const bool v4 = packet[0] >> 4 == 4;
  const size_t header_bytes = v4 ? static_cast<size_t>(packet[0] & 0x0f) * 4 : kIp6HeaderBytes;
  if (bytes < header_bytes + kTcpHeadBytes || packet[v4 ? 9 : 6] != IPPROTO_TCP) return std::nullopt;
  if (v4 && (load_be16(packet + 6) & 0x3fff) != 0) return std::nullopt;  // a fragment
  const uint8_t* tcp = packet + header_bytes;
  if ((tcp[13] & (kSyn | kAck)) == kSyn) return std::nullopt;
  ends.client.family = ends.vip.family = v4 ? IpAddress::Family::v4 : IpAddress::Family::v6;
  const size_t size = ends.client.size();
  const uint8_t* addresses = packet + (v4 ? 12 : 8);
  std::memcpy(ends.client.bytes.data(), addresses, size);
  std::memcpy(ends.vip.bytes.data(), addresses + size, size);
  std::memcpy(&ends.client_port_be, tcp, 2);
  std::memcpy(&ends.vip_port_be, tcp + 2, 2);
  return ends;
}

Result<OwnConnections> OwnConnections::open() {
  UniqueFd fd(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG));
  if (!fd) return fail(fmt::format("netlink for sock_diag: {}", std::strerror(errno)));
  // The kernel answers within the system call. A wait means that an answer was lost.
  const timeval wait = {0, 100'000};
  ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
  OwnConnections connections(std::move(fd), random_key());
  TcpEnds nobody;
  nobody.client = nobody.vip = IpAddress::v4(htonl(INADDR_LOOPBACK));
  if (!connections.ask(nobody)) {
    return fail(fmt::format("the kernel does not tell TCP connections by sock_diag: {}", std::strerror(errno)));
  }
  return connections;
}

bool OwnConnections::has(const TcpEnds& ends, uint64_t now_ns) {
  uint64_t words[5] = {};
  std::memcpy(words, ends.client.bytes.data(), 16);
  std::memcpy(words + 2, ends.vip.bytes.data(), 16);
  words[4] = uint64_t{ends.client_port_be} << 16 | ends.vip_port_be | uint64_t{ends.client.is_v4()} << 32;
  const uint64_t key = siphash13(key_, words, sizeof words);
  Known& known = known_[key % known_.size()];
  if (known.key == key && now_ns < known.until_ns) return known.is_own;
  known = {key, now_ns + kKeptNs, ask(ends).value_or(true)};
  return known.is_own;
}

// Returns nothing, and sets errno, if the kernel gave no answer.
std::optional<bool> OwnConnections::ask(const TcpEnds& ends) {
  struct {
    nlmsghdr head;
    inet_diag_req_v2 body;
  } question{};
  question.head = {sizeof question, SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST, ++asked_, 0};
  question.body.sdiag_family = ends.client.is_v4() ? AF_INET : AF_INET6;
  question.body.sdiag_protocol = IPPROTO_TCP;
  question.body.idiag_states = UINT32_MAX;
  inet_diag_sockid& id = question.body.id;
  id.idiag_sport = ends.vip_port_be;
  id.idiag_dport = ends.client_port_be;
  copy_address(ends.vip, id.idiag_src);
  copy_address(ends.client, id.idiag_dst);
  id.idiag_cookie[0] = id.idiag_cookie[1] = INET_DIAG_NOCOOKIE;
  if (::send(fd_.get(), &question, sizeof question, 0) != static_cast<ssize_t>(sizeof question)) return std::nullopt;
  for (;;) {
    alignas(nlmsghdr) uint8_t answer[4'096];
    const ssize_t bytes = ::recv(fd_.get(), answer, sizeof answer, 0);
    if (bytes < static_cast<ssize_t>(sizeof(nlmsghdr))) return std::nullopt;
    nlmsghdr head;
    std::memcpy(&head, answer, sizeof head);
    if (head.nlmsg_seq != asked_) continue;  // the late answer to an earlier question
    if (head.nlmsg_type == NLMSG_ERROR && bytes >= static_cast<ssize_t>(NLMSG_HDRLEN + sizeof(int))) {
      int error = 0;
      std::memcpy(&error, answer + NLMSG_HDRLEN, sizeof error);
      errno = -error;
      if (errno == ENOENT) return false;
      return std::nullopt;
    }
    if (bytes < static_cast<ssize_t>(NLMSG_HDRLEN + sizeof(inet_diag_msg))) return std::nullopt;
    inet_diag_msg found;
    std::memcpy(&found, answer + NLMSG_HDRLEN, sizeof found);
    return found.idiag_state != TCP_LISTEN;  // the kernel only found a listener, so it does not know this connection
  }
}

}  // namespace tidegate::l4
