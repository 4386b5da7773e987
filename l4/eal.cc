// SPDX-License-Identifier: Apache-2.0
#include "l4/eal.h"

#include <dlfcn.h>
#include <fmt/format.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "core/log.h"

namespace {

constexpr long kTscSleepNs = 100'000'000, kShortSleepNs = 10'000'000;
// True while this thread is in rte_eal_init() for a node without a NIC that DPDK drives.
thread_local bool eal_starts_without_nics = false;

}  // namespace

// If a CPU does not report the frequency of its TSC, EAL measures it over a sleep of a tenth of a second. No packet is
// forwarded meanwhile, and only the drivers of NICs use that frequency. EAL reads the clock before and after, so a
// shorter sleep is as correct, only coarser. EAL has no option for it. So this function replaces the C library's
// nanosleep() for it.
extern "C" int nanosleep(const timespec* wanted, timespec* left) {
  timespec sleep = *wanted;
  if (eal_starts_without_nics && sleep.tv_sec == 0 && sleep.tv_nsec == kTscSleepNs) sleep.tv_nsec = kShortSleepNs;
  const int error = ::clock_nanosleep(CLOCK_REALTIME, 0, &sleep, left);
  if (error == 0) return 0;
  errno = error;
  return -1;
}

// EAL loads every installed driver, and has no option to prevent that. Without NICs most drivers would only lengthen
// the time in which no packet is forwarded. For each of these the handle of this program is returned, which is valid
// and registers nothing.
extern "C" void* dlopen(const char* file, int mode) noexcept {
  using Open = void* (*)(const char*, int);
  static const auto next = reinterpret_cast<Open>(::dlsym(RTLD_NEXT, "dlopen"));
  if (eal_starts_without_nics && file != nullptr && tidegate::l4::is_driver_of_hardware(file)) file = nullptr;
  return next(file, mode);
}

namespace tidegate::l4 {

Result<std::unique_ptr<Eal>> Eal::start(const std::vector<std::string>& arguments) {
  std::string command_line;
  for (const std::string& argument : arguments) command_line += argument + " ";
  log_info("EAL: {}", command_line);
  // Without root, libxdp cannot load the dispatcher that lets several XDP programs share a device.
  if (::geteuid() != 0) ::setenv("LIBXDP_SKIP_DISPATCHER", "1", 0);
  // EAL keeps pointers into its arguments for as long as it lives.
  static std::vector<std::string> kept;
  kept = arguments;
  std::vector<char*> argv;
  argv.reserve(kept.size() + 1);
  for (std::string& argument : kept) argv.push_back(argument.data());
  argv.push_back(nullptr);
  eal_starts_without_nics = std::find(kept.begin(), kept.end(), "--no-pci") != kept.end();
  const int status = rte_eal_init(static_cast<int>(kept.size()), argv.data());
  eal_starts_without_nics = false;
  if (status < 0) {
    return fail(fmt::format("EAL did not start: {}", rte_strerror(rte_errno)));
  }
  return std::unique_ptr<Eal>(new Eal);
}

Eal::~Eal() { rte_eal_cleanup(); }

}  // namespace tidegate::l4
