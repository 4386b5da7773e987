// SPDX-License-Identifier: Apache-2.0
#include "l4/punt.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>

namespace tidegate::l4 {

Result<PuntDevice> PuntDevice::open(const std::string& port_device, const Mac& mac) {
  const auto failed = [](const char* what) { return fail(fmt::format("punt: {}: {}", what, std::strerror(errno))); };
  UniqueFd fd(::open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC));
  if (!fd) return failed("/dev/net/tun");
  const std::string name = punt_device_name(port_device);
  ifreq request{};
  std::memcpy(request.ifr_name, name.data(), name.size());
  request.ifr_flags = IFF_TAP | IFF_NO_PI;
  if (::ioctl(fd.get(), TUNSETIFF, &request) != 0) return failed("TUNSETIFF");
  PuntDevice device(std::move(fd), name);
  if (Result<void> set = device.set_mac(mac); !set) return set.error();
  const UniqueFd any(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (::ioctl(any.get(), SIOCGIFFLAGS, &request) != 0) return failed("SIOCGIFFLAGS");
  request.ifr_flags = static_cast<short>(request.ifr_flags | IFF_UP);
  if (::ioctl(any.get(), SIOCSIFFLAGS, &request) != 0) return failed("SIOCSIFFLAGS");
  return device;
}

Result<void> PuntDevice::set_mac(const Mac& mac) const {
  ifreq request{};
  std::memcpy(request.ifr_name, name_.data(), name_.size());
  request.ifr_hwaddr.sa_family = ARPHRD_ETHER;
  std::memcpy(request.ifr_hwaddr.sa_data, mac.bytes.data(), mac.bytes.size());
  if (::ioctl(fd_.get(), SIOCSIFHWADDR, &request) == 0) return {};
  return fail(fmt::format("punt: SIOCSIFHWADDR: {}", std::strerror(errno)));
}

bool PuntDevice::write(const uint8_t* frame, size_t bytes) const {
  return ::write(fd_.get(), frame, bytes) == static_cast<ssize_t>(bytes);
}

size_t PuntDevice::read(uint8_t* frame, size_t capacity) const {
  const ssize_t bytes = ::read(fd_.get(), frame, capacity);
  return bytes > 0 ? static_cast<size_t>(bytes) : 0;
}

}  // namespace tidegate::l4
