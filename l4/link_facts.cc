// SPDX-License-Identifier: Apache-2.0
#include "l4/link_facts.h"

#include <fmt/format.h>
#include <linux/if_link.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

namespace tidegate::l4 {
namespace {

constexpr unsigned kLowerUp = 1u << 16;  // IFF_LOWER_UP; its header cannot be included together with <net/if.h>
constexpr size_t kAnswerBytes = 32'768;  // the answer for an interface with many attributes has a few thousand bytes

uint32_t read_u32(const rtattr* attribute) {
  uint32_t value = 0;
  std::memcpy(&value, RTA_DATA(attribute), sizeof value);
  return value;
}

template <class Each>
void for_each_attribute(const rtattr* first, size_t bytes, Each&& each) {
  auto left = static_cast<int>(bytes);
  for (const rtattr* a = first; RTA_OK(a, left); a = RTA_NEXT(a, left)) each(a);
}

LinkFacts facts_of(const nlmsghdr* message) {
  LinkFacts facts;
  const auto* info = static_cast<const ifinfomsg*>(NLMSG_DATA(message));
  facts.exists = true;
  facts.index = static_cast<uint32_t>(info->ifi_index);
  facts.up = (info->ifi_flags & IFF_UP) != 0 && (info->ifi_flags & kLowerUp) != 0;
  for_each_attribute(IFLA_RTA(info), IFLA_PAYLOAD(message), [&](const rtattr* attribute) {
    const unsigned type = attribute->rta_type & ~static_cast<unsigned>(NLA_F_NESTED);
    if (type == IFLA_MTU) facts.mtu = read_u32(attribute);
    if (type != IFLA_XDP) return;
    for_each_attribute(
        static_cast<const rtattr*>(RTA_DATA(attribute)), RTA_PAYLOAD(attribute), [&](const rtattr* inner) {
          const bool is_program = inner->rta_type == IFLA_XDP_PROG_ID || inner->rta_type == IFLA_XDP_DRV_PROG_ID ||
                                  inner->rta_type == IFLA_XDP_SKB_PROG_ID;
          if (is_program) facts.xdp_program = read_u32(inner);
        });
  });
  return facts;
}

UniqueFd netlink_socket(uint32_t groups) {
  UniqueFd fd(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | (groups != 0 ? SOCK_NONBLOCK : 0), NETLINK_ROUTE));
  sockaddr_nl address{};
  address.nl_family = AF_NETLINK;
  address.nl_groups = groups;
  if (fd && ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) fd.reset();
  return fd;
}

}  // namespace

Result<LinkFacts> read_link(const std::string& device) {
  const auto failed = [&](const char* what) { return fail(fmt::format("{}: {}", what, std::strerror(errno))); };
  const UniqueFd fd = netlink_socket(0);
  if (!fd) return failed("netlink");
  struct {
    nlmsghdr head;
    ifinfomsg info;
    rtattr attribute;
    char name[IFNAMSIZ];
  } question{};
  const size_t name_bytes = std::min(device.size(), size_t{IFNAMSIZ - 1}) + 1;
  question.head.nlmsg_type = RTM_GETLINK;
  question.head.nlmsg_flags = NLM_F_REQUEST;
  question.attribute.rta_type = IFLA_IFNAME;
  question.attribute.rta_len = static_cast<uint16_t>(RTA_LENGTH(name_bytes));
  std::memcpy(question.name, device.data(), name_bytes - 1);
  question.head.nlmsg_len = static_cast<uint32_t>(NLMSG_LENGTH(sizeof question.info) + RTA_LENGTH(name_bytes));
  if (::send(fd.get(), &question, question.head.nlmsg_len, 0) < 0) return failed("netlink");
  alignas(nlmsghdr) std::array<char, kAnswerBytes> answer;
  const ssize_t bytes = ::recv(fd.get(), answer.data(), answer.size(), 0);
  if (bytes < 0) return failed("netlink");
  const auto* message = reinterpret_cast<const nlmsghdr*>(answer.data());
  if (!NLMSG_OK(message, static_cast<uint32_t>(bytes))) return fail("netlink: an answer cut short");
  if (message->nlmsg_type != RTM_NEWLINK) return LinkFacts{};  // ENODEV
  return facts_of(message);
}

LinkEvents::LinkEvents() : fd_(netlink_socket(RTMGRP_LINK)) {}

void LinkEvents::drain() {
  std::array<char, 4'096> ignored;
  while (::recv(fd_.get(), ignored.data(), ignored.size(), MSG_DONTWAIT) > 0 || errno == ENOBUFS) {
    if (errno == ENOBUFS) errno = 0;
  }
}

}  // namespace tidegate::l4
