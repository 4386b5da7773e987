// SPDX-License-Identifier: Apache-2.0
// The DPDK environment (EAL). A pure function decides its arguments, and one call starts it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "conf/model/node.h"
#include "core/result.h"

namespace tidegate::l4 {

struct HostResources {
  std::vector<uint32_t> cpus;  // the CPUs that this process may run on
  uint64_t free_hugepage_bytes = 0;
};
HostResources read_host_resources();

bool is_pci_address(const std::string& device);
// The devices that the port opens: its own, those that it bonds, or none if it shares another port's.
std::vector<std::string> devices_of(const L4Port& port);
// True if DPDK drives the NIC of the port, or the NICs of its bond. Such a port belongs to one process from the start
// of EAL to its end.
bool is_pci_port(const L4Port& port);

// The main thread is lcore 0; workers are lcores 1 to `workers`. If there are more CPUs than workers, each worker gets
// its own CPU, counted from the last one. On a smaller host the kernel places the workers. Hugepages are used if enough
// are free, in memory only (no files, no lock against other DPDK processes); otherwise plain pages.
std::vector<std::string> eal_arguments(const L4Node& node, const HostResources& host);

// True if this is one of DPDK's driver libraries that a forwarder with only interfaces and capture files does not need.
// `library` is a path: "/usr/lib/x86_64-linux-gnu/dpdk/pmds-23.0/librte_net_mlx5.so.23.0".
bool is_driver_of_hardware(std::string_view library);

// EAL as long as it runs. It starts once per process: also after an Error, and after the end of an Eal, no other can be
// started.
class Eal {
 public:
  static Result<std::unique_ptr<Eal>> start(const std::vector<std::string>& arguments);
  ~Eal();
  Eal(const Eal&) = delete;
  Eal& operator=(const Eal&) = delete;

 private:
  Eal() = default;
};

}  // namespace tidegate::l4
