// SPDX-License-Identifier: Apache-2.0
#include "core/usable_cores.h"

#include <sched.h>

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <fstream>
#include <sstream>
#include <string_view>
#include <thread>
#include <vector>

namespace tidegate {
namespace {

constexpr size_t kCpusMost = 8'192;  // the most that a kernel for servers is built for

// Zero: the kernel does not say.
uint32_t cores_of_affinity() {
  std::vector<cpu_set_t> sets(kCpusMost / CPU_SETSIZE);
  const size_t bytes = sets.size() * sizeof(cpu_set_t);
  if (::sched_getaffinity(0, bytes, sets.data()) != 0) return std::thread::hardware_concurrency();
  return static_cast<uint32_t>(CPU_COUNT_S(bytes, sets.data()));
}

// The process's cgroup of version 2: "0::/system.slice/tidegate-l7.service".
std::optional<std::string> own_cgroup(const std::string& proc) {
  std::ifstream file(proc + "/cgroup");
  constexpr std::string_view kVersion2 = "0::";
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with(kVersion2)) return line.substr(kVersion2.size());
  }
  return std::nullopt;
}

struct Mount {
  std::string root;   // the cgroup that is mounted: "/" unless it is a container's part
  std::string place;  // where
};

// proc(5): number, parent, device, root, place, options, optional fields, "-", type, …
std::optional<Mount> cgroup_mount(const std::string& proc) {
  std::ifstream file(proc + "/mountinfo");
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string number, parent, device, type;
    Mount mount;
    words >> number >> parent >> device >> mount.root >> mount.place;
    for (std::string word; words >> word && word != "-";) {
    }
    if (words >> type && type == "cgroup2") return mount;
  }
  return std::nullopt;
}

std::optional<uint64_t> number_of(std::string_view text) {
  uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc{} && end == text.data() + text.size() ? std::optional(number) : std::nullopt;
}

// "max 100000", or "150000 100000": microseconds of CPU time in each period.
std::optional<uint32_t> cores_of(const std::string& folder) {
  std::ifstream file(folder + "/cpu.max");
  std::string quota, period;
  file >> quota >> period;
  const std::optional<uint64_t> quota_us = number_of(quota), period_us = number_of(period);
  if (!quota_us || !period_us || *period_us == 0) return std::nullopt;
  const uint64_t cores = *quota_us / *period_us + (*quota_us % *period_us == 0 ? 0 : 1);
  return static_cast<uint32_t>(std::clamp<uint64_t>(cores, 1, kCpusMost));
}

}  // namespace

std::optional<uint32_t> cores_of_cgroups(const std::string& proc) {
  const std::optional<std::string> own = own_cgroup(proc);
  const std::optional<Mount> mount = cgroup_mount(proc);
  if (!own || !mount) return std::nullopt;
  // What is mounted begins at mount->root. A cgroup outside of it is seen from a namespace that begins elsewhere.
  const std::string root = mount->root == "/" ? "" : mount->root;
  const bool inside = own->starts_with(root) && (own->size() == root.size() || (*own)[root.size()] == '/');
  std::string below = inside ? own->substr(root.size()) : std::string();
  std::optional<uint32_t> least;
  while (true) {
    const std::optional<uint32_t> here = cores_of(mount->place + below);
    if (here && (!least || *here < *least)) least = here;
    const size_t slash = below.rfind('/');
    if (slash == std::string::npos) return least;
    below.resize(slash);
  }
}

uint32_t usable_cores() {
  const uint32_t all = std::max<uint32_t>(1, cores_of_affinity());
  return std::min(all, cores_of_cgroups("/proc/self").value_or(all));
}

}  // namespace tidegate
