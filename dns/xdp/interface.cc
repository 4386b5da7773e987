// SPDX-License-Identifier: Apache-2.0
#include "dns/xdp/interface.h"

#include <fmt/format.h>
#include <ifaddrs.h>
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "dns/listening_socket.h"

namespace tidegate::dns {
namespace {

constexpr int kLeastMtu = 1'280;  // kMaxUdpPayload with its headers

Error system_error(const char* what) { return fail(fmt::format("{}: {}", what, std::strerror(errno))); }

std::vector<IpAddress> host_addresses() {
  std::vector<IpAddress> addresses;
  ifaddrs* list = nullptr;
  if (::getifaddrs(&list) != 0) return addresses;
  for (const ifaddrs* each = list; each != nullptr; each = each->ifa_next) {
    if (each->ifa_addr == nullptr) continue;
    if (each->ifa_addr->sa_family == AF_INET) {
      addresses.push_back(IpAddress::from(reinterpret_cast<const sockaddr_in*>(each->ifa_addr)->sin_addr));
    } else if (each->ifa_addr->sa_family == AF_INET6) {
      addresses.push_back(IpAddress::from(reinterpret_cast<const sockaddr_in6*>(each->ifa_addr)->sin6_addr));
    }
  }
  ::freeifaddrs(list);
  return addresses;
}

bool comes_from_outside(const IpAddress& address) {
  if (address.is_v4()) return address.bytes[0] != 127;
  const bool link_local = address.bytes[0] == 0xfe && (address.bytes[1] & 0xc0) == 0x80;
  return !link_local && address != *IpAddress::parse("::1");
}

}  // namespace

std::vector<Endpoint> reachable_endpoints(const std::vector<Endpoint>& listen, const std::vector<IpAddress>& of_host) {
  std::vector<Endpoint> endpoints;
  const auto take = [&](const Endpoint& endpoint) {
    const bool known = std::find(endpoints.begin(), endpoints.end(), endpoint) != endpoints.end();
    if (!known && comes_from_outside(endpoint.address)) endpoints.push_back(endpoint);
  };
  for (const Endpoint& endpoint : listen) {
    if (!is_wildcard(endpoint.address)) {
      take(endpoint);
      continue;
    }
    for (const IpAddress& address : of_host) {
      if (address.family == endpoint.address.family) take({address, endpoint.port});
    }
  }
  return endpoints;
}

Result<XdpInterface::Facts> XdpInterface::read_facts(const std::string& name, const std::vector<Endpoint>& listen) {
  const UniqueFd fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!fd) return system_error("a socket to ask by");
  ifreq request{};
  name.copy(request.ifr_name, IFNAMSIZ - 1);
  const auto ask = [&](unsigned long what) { return ::ioctl(fd.get(), what, &request) == 0; };
  Facts facts;
  if (!ask(SIOCGIFINDEX)) return system_error("the interface");
  facts.index = static_cast<unsigned>(request.ifr_ifindex);
  if (!ask(SIOCGIFHWADDR)) return system_error("its MAC");
  std::memcpy(facts.match.mac.data(), request.ifr_hwaddr.sa_data, facts.match.mac.size());
  if (!ask(SIOCGIFMTU)) return system_error("its MTU");
  facts.mtu = request.ifr_mtu;
  ethtool_channels channels{};
  channels.cmd = ETHTOOL_GCHANNELS;
  request.ifr_data = reinterpret_cast<char*>(&channels);
  // A driver without support for channels has one queue.
  if (ask(SIOCETHTOOL)) facts.queues = std::max(1U, channels.rx_count + channels.combined_count);
  facts.match.endpoints = reachable_endpoints(listen, host_addresses());
  return facts;
}

bool XdpInterface::is_current(const std::vector<Endpoint>& listen) const {
  const auto facts = read_facts(name_, listen);
  return facts && *facts == facts_;
}

Result<std::unique_ptr<XdpInterface>> XdpInterface::open(const std::string& name, const std::vector<Endpoint>& listen) {
  const auto facts = read_facts(name, listen);
  if (!facts) return facts.error();
  if (facts->mtu < kLeastMtu) return fail(fmt::format("its MTU of {} is below {}", facts->mtu, kLeastMtu));
  if (facts->match.endpoints.empty()) return fail("no address is listened on that frames could come for");
  auto opened = std::make_unique<XdpInterface>();
  opened->name_ = name;
  opened->facts_ = *facts;
  auto attachment = attach_xdp(facts->match, facts->queues, facts->index);
  if (!attachment) return attachment.error();
  opened->attachment_ = *std::move(attachment);
  // The program is already in force: while a queue has no socket, its queries go through the kernel.
  for (uint32_t queue = 0; queue < facts->queues; ++queue) {
    auto socket = XdpSocket::open(name, queue);
    if (!socket) return socket.error();
    const int fd = (*socket)->fd();
    opened->sockets_.push_back(*std::move(socket));
    if (const auto entered = opened->attachment_.enter(queue, fd); !entered) return entered.error();
  }
  return opened;
}

}  // namespace tidegate::dns
