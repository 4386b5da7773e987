// SPDX-License-Identifier: Apache-2.0
#include "l4/decap/receiver.h"

#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>

#include "core/clock.h"
#include "l4/wire.h"

namespace tidegate::l4 {
namespace {

constexpr int kReceiveBytes = 4 << 20;  // SO_RCVBUF: a burst of a forwarder must not be lost while we are not running
constexpr int kTurns = 4;               // batches before other sockets have their turn

bool is_gue(Wrapping wrapping) { return wrapping == Wrapping::gue_in_ip4 || wrapping == Wrapping::gue_in_ip6; }
bool is_over_ip4(Wrapping wrapping) {
  return wrapping == Wrapping::ip4_in_ip4 || wrapping == Wrapping::ip6_in_ip4 || wrapping == Wrapping::gue_in_ip4;
}
int protocol_of(Wrapping wrapping) {
  if (is_gue(wrapping)) return IPPROTO_UDP;
  return wrapping == Wrapping::ip4_in_ip4 || wrapping == Wrapping::ip4_in_ip6 ? IPPROTO_IPIP : IPPROTO_IPV6;
}

Result<UniqueFd> open_socket(Wrapping wrapping, uint16_t gue_port) {
  const bool v4 = is_over_ip4(wrapping);
  const int type = (is_gue(wrapping) ? SOCK_DGRAM : SOCK_RAW) | SOCK_NONBLOCK | SOCK_CLOEXEC;
  UniqueFd fd(::socket(v4 ? AF_INET : AF_INET6, type, protocol_of(wrapping)));
  const auto failed = [&](const char* what) {
    return fail(fmt::format("{} socket of protocol {} over {}: {}", what, protocol_of(wrapping), v4 ? "IPv4" : "IPv6",
                            std::strerror(errno)));
  };
  if (!fd) return failed("open");
  const int on = 1;
  ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVBUF, &kReceiveBytes, sizeof kReceiveBytes);
  if (v4) {
    ::setsockopt(fd.get(), IPPROTO_IP, IP_RECVTOS, &on, sizeof on);
  } else {
    ::setsockopt(fd.get(), IPPROTO_IPV6, IPV6_RECVTCLASS, &on, sizeof on);
  }
  if (!is_gue(wrapping)) return fd;
  if (!v4) {
    // The forwarder sends no UDP checksum (RFC 6935), also over IPv6.
    ::setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
    if (::setsockopt(fd.get(), IPPROTO_UDP, UDP_NO_CHECK6_RX, &on, sizeof on) != 0) return failed("set up");
  }
  Endpoint any;
  any.address.family = v4 ? IpAddress::Family::v4 : IpAddress::Family::v6;
  any.port = gue_port;
  sockaddr_storage storage{};
  const socklen_t length = any.to_sockaddr(storage);
  if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&storage), length) != 0) return failed("bind");
  return fd;
}

// The outer TOS or traffic class, from the datagram's control messages.
uint8_t traffic_class_of(msghdr& message) {
  for (cmsghdr* part = CMSG_FIRSTHDR(&message); part != nullptr; part = CMSG_NXTHDR(&message, part)) {
    if (part->cmsg_level == IPPROTO_IP && part->cmsg_type == IP_TOS) return *CMSG_DATA(part);
    if (part->cmsg_level == IPPROTO_IPV6 && part->cmsg_type == IPV6_TCLASS) {
      int value;
      std::memcpy(&value, CMSG_DATA(part), sizeof value);
      return static_cast<uint8_t>(value);
    }
  }
  return 0;
}

}  // namespace

DecapCounters::DecapCounters(Metrics& metrics)
    : delivered_packets(metrics.counter("tidegate_decap_delivered_packets_total", "Packets given to the kernel")),
      delivered_bytes(metrics.counter("tidegate_decap_delivered_bytes_total", "Bytes of these packets")),
      handed_on_packets(metrics.counter("tidegate_decap_handed_on_packets_total",
                                        "Packets of connections of another host, sent on to the second backend")) {
  for (size_t i = 1; i < kDecapReasons; ++i) {
    dropped[i] = &metrics.counter("tidegate_decap_dropped_packets_total", "Tunnelled packets dropped, by reason",
                                  {{"reason", std::string(name(static_cast<DecapReason>(i)))}});
  }
}

Result<std::unique_ptr<Receiver>> Receiver::open(EventLoop& loop, Wrapping wrapping, const DecapConfig& config,
                                                 const TunDevice& device, HandOn* hand_on, DecapCounters& counters) {
  Result<UniqueFd> fd = open_socket(wrapping, config.gue_port);
  if (!fd) return fd.error();
  return std::unique_ptr<Receiver>(new Receiver(loop, std::move(*fd), wrapping, config, device, hand_on, counters));
}

Receiver::Receiver(EventLoop& loop, UniqueFd fd, Wrapping wrapping, const DecapConfig& config, const TunDevice& device,
                   HandOn* hand_on, DecapCounters& counters)
    : loop_(loop),
      fd_(std::move(fd)),
      wrapping_(wrapping),
      config_(config),
      device_(device),
      hand_on_(hand_on),
      counters_(counters),
      buffers_(kBatch * kMostBytes) {
  loop_.add(fd_.get(), EPOLLIN, this);
}

Receiver::~Receiver() { loop_.remove(fd_.get()); }

void Receiver::on_io(uint32_t) {
  std::array<mmsghdr, kBatch> messages{};
  std::array<iovec, kBatch> parts;
  std::array<sockaddr_storage, kBatch> peers;
  struct alignas(cmsghdr) Beside {
    uint8_t bytes[CMSG_SPACE(sizeof(int))];
  };
  std::array<Beside, kBatch> beside;
  for (int turn = 0; turn < kTurns; ++turn) {
    for (unsigned i = 0; i < kBatch; ++i) {
      parts[i] = {buffers_.data() + i * kMostBytes, kMostBytes};
      messages[i].msg_hdr = {};
      messages[i].msg_hdr.msg_name = &peers[i];
      messages[i].msg_hdr.msg_namelen = sizeof peers[i];
      messages[i].msg_hdr.msg_iov = &parts[i];
      messages[i].msg_hdr.msg_iovlen = 1;
      messages[i].msg_hdr.msg_control = &beside[i];
      messages[i].msg_hdr.msg_controllen = sizeof beside[i];
    }
    const int count = ::recvmmsg(fd_.get(), messages.data(), kBatch, 0, nullptr);
    for (int i = 0; i < count; ++i) {
      const auto at = static_cast<size_t>(i);
      const DecapReason reason = deliver(buffers_.data() + at * kMostBytes, messages[at].msg_len,
                                         Endpoint::from(peers[at]).address, traffic_class_of(messages[at].msg_hdr));
      if (reason != DecapReason::none) counters_.dropped[static_cast<size_t>(reason)]->add();
    }
    if (count < static_cast<int>(kBatch)) return;
  }
}

DecapReason Receiver::deliver(uint8_t* datagram, size_t bytes, const IpAddress& source, uint8_t traffic_class) {
  const bool from_forwarder = holds_any(config_.from, source);
  if (!from_forwarder && (hand_on_ == nullptr || !hand_on_->is_peer(source))) return DecapReason::source_not_allowed;
  const Unwrapped inside = unwrap(datagram, bytes);
  if (inside.reason != DecapReason::none) return inside.reason;
  if (!config_.to.empty() && !holds_any(config_.to, inner_destination(inside.packet))) {
    return DecapReason::inner_destination;
  }
  uint8_t* packet = datagram + (inside.packet - datagram);
  if (const DecapReason reason = carry_congestion(traffic_class, packet); reason != DecapReason::none) return reason;
  if (from_forwarder && hand_on_ != nullptr && (inside.private_bytes != 0 || inside.id != 0)) {
    const HandOn::Decision decision = hand_on_->decide(inside, packet, monotonic_ns());
    if (decision.fate == HandOn::Fate::handed_on) counters_.handed_on_packets.add();
    if (decision.fate != HandOn::Fate::ours) return decision.reason;
  }
  if (!device_.write(inside.packet, inside.bytes)) return DecapReason::device_refused;
  counters_.delivered_packets.add();
  counters_.delivered_bytes.add(inside.bytes);
  return DecapReason::none;
}

Unwrapped Receiver::unwrap(const uint8_t* datagram, size_t bytes) const {
  if (is_gue(wrapping_)) return unwrap_gue(datagram, bytes);
  const auto inner = static_cast<uint8_t>(protocol_of(wrapping_));
  if (!is_over_ip4(wrapping_)) return unwrap_ipip(datagram, bytes, inner);
  const size_t header_bytes = outer_ip4_bytes(datagram, bytes);
  if (header_bytes == 0) return {DecapReason::outer_truncated, nullptr, 0};
  Unwrapped inside = unwrap_ipip(datagram + header_bytes, bytes - header_bytes, inner);
  inside.id = load_be16(datagram + 4);
  return inside;
}

}  // namespace tidegate::l4
