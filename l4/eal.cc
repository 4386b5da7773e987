// SPDX-License-Identifier: Apache-2.0
#include "l4/eal.h"

#include <fmt/format.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <unistd.h>

#include "core/log.h"

namespace tidegate::l4 {

Result<void> start_eal(const std::vector<std::string>& arguments) {
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
  if (rte_eal_init(static_cast<int>(kept.size()), argv.data()) < 0) {
    return fail(fmt::format("EAL did not start: {}", rte_strerror(rte_errno)));
  }
  return {};
}

}  // namespace tidegate::l4
