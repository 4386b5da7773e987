// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <sched.h>

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <fstream>

#include "conf/model/node.h"
#include "l4/eal.h"

namespace tidegate::l4 {
namespace {

uint64_t read_number(const std::filesystem::path& path) {
  std::ifstream in(path);
  uint64_t value = 0;
  in >> value;
  return in ? value : 0;
}

// Directories are named hugepages-<size>kB.
uint64_t free_hugepage_bytes() {
  uint64_t bytes = 0;
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator("/sys/kernel/mm/hugepages", ignored)) {
    const std::string name = entry.path().filename();
    const size_t digits = name.find_first_of("0123456789");
    if (digits == std::string::npos) continue;
    bytes += read_number(entry.path() / "free_hugepages") * std::strtoull(name.c_str() + digits, nullptr, 10) * 1024;
  }
  return bytes;
}

std::string lcores(uint32_t workers, const std::vector<uint32_t>& cpus) {
  std::string all;
  for (const uint32_t cpu : cpus) all += (all.empty() ? "(" : ",") + std::to_string(cpu);
  all += ')';
  std::string out = "0@" + all;
  const bool own_cpus = cpus.size() > workers;
  for (uint32_t worker = 0; worker < workers; ++worker) {
    const std::string place = own_cpus ? fmt::format("{}", cpus[cpus.size() - 1 - worker]) : all;
    out += fmt::format(",{}@{}", worker + 1, place);
  }
  return out;
}

}  // namespace

HostResources read_host_resources() {
  HostResources host;
  cpu_set_t set;
  CPU_ZERO(&set);
  ::sched_getaffinity(0, sizeof set, &set);
  for (uint32_t cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &set)) host.cpus.push_back(cpu);
  }
  host.free_hugepage_bytes = free_hugepage_bytes();
  return host;
}

bool is_pci_address(const std::string& device) {
  // dddd:bb:dd.f; the domain dddd: is optional
  std::string shape;
  for (const char c : device) shape += std::isxdigit(static_cast<unsigned char>(c)) != 0 ? 'x' : c;
  return shape == "xxxx:xx:xx.x" || shape == "xx:xx.x";
}

bool is_driver_of_hardware(std::string_view library) {
  constexpr std::string_view kPrefix = "librte_", kDirectory = "/dpdk/pmds-";
  const size_t slash = library.rfind('/');
  if (slash == std::string_view::npos || library.find(kDirectory) == std::string_view::npos) return false;
  std::string_view name = library.substr(slash + 1);
  if (!name.starts_with(kPrefix)) return false;
  name = name.substr(kPrefix.size(), name.find(".so") - kPrefix.size());
  // The bus and the drivers of Port::open_devices(), and the ring that packet buffers are kept in.
  constexpr std::string_view kOurs[] = {"bus_vdev", "mempool_ring", "net_af_packet", "net_af_xdp", "net_pcap"};
  return std::find(std::begin(kOurs), std::end(kOurs), name) == std::end(kOurs);
}

std::vector<std::string> devices_of(const L4Port& port) {
  if (!port.shares.empty()) return {};
  return port.members.empty() ? std::vector<std::string>{port.device} : port.members;
}

bool is_pci_port(const L4Port& port) {
  if (!port.shares.empty()) return false;
  const std::string& device = port.members.empty() ? port.device : port.members.front();
  return port.driver == "pci" || (port.driver == "auto" && is_pci_address(device));
}

std::vector<std::string> eal_arguments(const L4Node& node, const HostResources& host) {
  std::vector<std::string> arguments = {"tidegate-l4", "--lcores", lcores(node.workers, host.cpus)};
  const uint64_t wanted_bytes = uint64_t{node.memory_mb} << 20;
  if (host.free_hugepage_bytes >= wanted_bytes) {
    arguments.push_back("--in-memory");
  } else {
    arguments.insert(arguments.end(), {"--no-huge", "--no-shconf"});  // --in-memory excludes --no-huge
  }
  arguments.insert(arguments.end(), {"-m", fmt::format("{}", node.memory_mb), "--no-telemetry"});
  bool any_pci = false;
  for (const L4Port& port : node.ports) {
    const bool pci = is_pci_port(port);
    for (const std::string& device : devices_of(port)) {
      if (pci) arguments.insert(arguments.end(), {"-a", device});
    }
    any_pci = any_pci || pci;
  }
  if (!any_pci) arguments.push_back("--no-pci");
  arguments.insert(arguments.end(), {"--log-level", "*:warning"});
  return arguments;
}

}  // namespace tidegate::l4
