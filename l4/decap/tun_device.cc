// SPDX-License-Identifier: Apache-2.0
#include "l4/decap/tun_device.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>

#include "core/log.h"

namespace tidegate::l4 {
namespace {

// The kernel takes the larger of an interface's value and that of `all`. Only 1 (strict) refuses our packets.
void turn_filter_off(const std::string& name) {
  const std::string folder = "/proc/sys/net/ipv4/conf/";
  std::ofstream(folder + name + "/rp_filter") << "0\n";
  int of_all = 0, of_device = 0;
  std::ifstream(folder + "all/rp_filter") >> of_all;
  std::ifstream(folder + name + "/rp_filter") >> of_device;
  if (of_all == 1 || of_device == 1) {
    log_warn(
        "{}: strict reverse path filter is on: the kernel will drop clients' packets "
        "(sysctl net.ipv4.conf.all.rp_filter=2)",
        name);
  }
}

}  // namespace

Result<TunDevice> TunDevice::open(const std::string& name) {
  const auto failed = [&](const char* what) {
    return fail(fmt::format("{}: {}: {}", name, what, std::strerror(errno)));
  };
  if (name.empty() || name.size() >= IFNAMSIZ) return fail("the name of an interface has 1 to 15 letters");
  UniqueFd fd(::open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC));
  if (!fd) return failed("/dev/net/tun");
  ifreq request{};
  std::memcpy(request.ifr_name, name.data(), name.size());
  request.ifr_flags = IFF_TUN | IFF_NO_PI;
  if (::ioctl(fd.get(), TUNSETIFF, &request) != 0) return failed("TUNSETIFF");
  const UniqueFd any(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (::ioctl(any.get(), SIOCGIFFLAGS, &request) != 0) return failed("SIOCGIFFLAGS");
  request.ifr_flags = static_cast<short>(request.ifr_flags | IFF_UP);
  if (::ioctl(any.get(), SIOCSIFFLAGS, &request) != 0) return failed("SIOCSIFFLAGS");
  turn_filter_off(name);
  return TunDevice(std::move(fd));
}

bool TunDevice::write(const uint8_t* packet, size_t bytes) const {
  return ::write(fd_.get(), packet, bytes) == static_cast<ssize_t>(bytes);
}

}  // namespace tidegate::l4
