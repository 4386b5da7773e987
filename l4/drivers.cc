// SPDX-License-Identifier: Apache-2.0
#include "l4/drivers.h"

#include <fmt/format.h>
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <rte_dev.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <bit>
#include <fstream>
#include <string_view>

#include "core/fd.h"

namespace tidegate::l4 {
namespace {

constexpr std::streamsize kCaptureHeaderBytes = 24;

// The number of receive queues over which the kernel spreads an interface's frames; 0 if the kernel does not report it.
uint32_t receive_channels(const std::string& interface) {
  const UniqueFd any(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ethtool_channels channels{};
  channels.cmd = ETHTOOL_GCHANNELS;
  ifreq request{};
  interface.copy(request.ifr_name, IFNAMSIZ - 1);
  request.ifr_data = reinterpret_cast<char*>(&channels);
  if (::ioctl(any.get(), SIOCETHTOOL, &request) != 0) return 0;
  return channels.combined_count + channels.rx_count;
}

}  // namespace

std::string dpdk_error(int negative_errno) { return rte_strerror(negative_errno < 0 ? -negative_errno : rte_errno); }

uint32_t xdp_buffer_bytes(uint32_t mtu) { return RTE_PKTMBUF_HEADROOM + kXdpHeadroom + mtu + kFrameOverhead; }
uint32_t ring_bytes(uint32_t mtu) { return std::bit_ceil(std::max(mtu + kFrameOverhead + kPacketHeadroom, 2'048u)); }

unsigned frames_kept(const std::string& device) {
  if (device.find("infinite_rx=1") == std::string::npos) return 0;
  std::ifstream capture(device.substr(0, device.find(',')), std::ios::binary);
  capture.ignore(kCaptureHeaderBytes);
  unsigned frames = 0;
  uint32_t record[4];  // seconds, microseconds, captured bytes, bytes on the wire
  while (capture.read(reinterpret_cast<char*>(record), sizeof record)) {
    capture.ignore(record[2]);
    ++frames;
  }
  return frames;
}

// Turns "rx.pcap,tx.pcap,infinite_rx=1" into net_pcap's arguments. If there is no file to write, sent frames are
// dropped.
std::string pcap_arguments(const std::string& device) {
  std::string out;
  size_t files = 0;
  size_t start = 0;
  while (start <= device.size()) {
    const size_t comma = std::min(device.find(',', start), device.size());
    const std::string part = device.substr(start, comma - start);
    start = comma + 1;
    if (part.empty()) continue;
    if (!out.empty()) out += ',';
    if (part.find('=') != std::string::npos) {
      out += part;
    } else {
      out += (files++ == 0 ? "rx_pcap=" : "tx_pcap=") + part;
    }
  }
  return out;
}

size_t pcap_queues(const std::string& device) {
  constexpr std::string_view kReceived = "rx_pcap=";
  const std::string arguments = pcap_arguments(device);
  size_t queues = 0;
  for (size_t at = arguments.find(kReceived); at != std::string::npos; at = arguments.find(kReceived, at + 1)) ++queues;
  return queues;
}

// busy_budget=0 turns preferred busy polling off. Then poll(2) can wait, and an idle worker can sleep.
std::string xdp_arguments(const std::string& interface, uint32_t first_queue, uint32_t queues) {
  return fmt::format("iface={},start_queue={},queue_count={},busy_budget=0", interface, first_queue, queues);
}

std::string packet_arguments(const std::string& interface, uint32_t queues, uint32_t frame_bytes) {
  return fmt::format("iface={},qpairs={},qdisc_bypass=1,framesz={},blocksz={}", interface, queues, frame_bytes,
                     std::max(frame_bytes, 4'096u));
}

Result<void> check_channels(const std::string& interface, uint32_t workers) {
  const uint32_t channels = receive_channels(interface);
  if (channels <= workers) return {};
  return fail(fmt::format("{} receive queues, but {} workers (ethtool -L {} to lower, or raise workers)", channels,
                          workers, interface));
}

Result<uint16_t> find_nic(const std::string& device) {
  uint16_t id = 0;
  const int status = rte_eth_dev_get_port_by_name(device.c_str(), &id);
  if (status != 0) return fail(fmt::format("no such device, or no driver took it ({})", dpdk_error(status)));
  return id;
}

Result<uint16_t> plug_in(const std::string& vdev, const std::string& arguments) {
  if (const int status = rte_eal_hotplug_add("vdev", vdev.c_str(), arguments.c_str()); status != 0) {
    return fail(fmt::format("{} ({})", dpdk_error(status), arguments));
  }
  uint16_t device = 0;
  if (rte_eth_dev_get_port_by_name(vdev.c_str(), &device) == 0) return device;
  rte_eal_hotplug_remove("vdev", vdev.c_str());
  return fail("device did not appear");
}

Result<void> note_link(const std::string& interface, const std::string& driver, LinkFacts& link) {
  Result<LinkFacts> facts = read_link(interface);
  if (!facts) return facts.error();
  link = *facts;
  if (driver != "af_xdp") link.xdp_program = 0;  // another program's id, not ours
  return {};
}

}  // namespace tidegate::l4
