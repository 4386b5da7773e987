// SPDX-License-Identifier: Apache-2.0
// The parameters of DPDK's poll mode drivers: arguments, sizes of buffers, and numbers of queues.
#pragma once

#include <cstdint>
#include <string>

#include "core/result.h"
#include "l4/link_facts.h"
#include "l4/wire.h"

namespace tidegate::l4 {

// A frame has at most two tags. AF_XDP keeps room before a frame for programs, and needs buffers of one page.
constexpr uint32_t kFrameOverhead = kEthernetBytes + 2 * kTagBytes, kXdpHeadroom = 256;
constexpr uint32_t kXdpMostMtu = 3'498;
constexpr uint32_t kPacketHeadroom = 128;  // bytes before a frame in af_packet's ring
constexpr uint32_t kMostRingFrame = 16'384;

// The text of a negative errno, or of DPDK's last error.
std::string dpdk_error(int negative_errno);

// The buffer of AF_XDP, and the slot in af_packet's ring, that frames of an interface need.
uint32_t xdp_buffer_bytes(uint32_t mtu);
uint32_t ring_bytes(uint32_t mtu);
// A capture that is received repeatedly (infinite_rx) occupies that many buffers of its queue while the device is open.
// Of several captures, the first has the most frames.
unsigned frames_kept(const std::string& device);

// Arguments of net_pcap, of net_af_xdp and of net_af_packet.
std::string pcap_arguments(const std::string& device);
// One for each capture that is received: "rx.pcap,rx_pcap=rx2.pcap" has two.
size_t pcap_queues(const std::string& device);
std::string xdp_arguments(const std::string& interface, uint32_t first_queue, uint32_t queues);
std::string packet_arguments(const std::string& interface, uint32_t queues, uint32_t frame_bytes);

// XDP passes the frames of a queue without a socket to the kernel. They would bypass the forwarder unnoticed.
Result<void> check_channels(const std::string& interface, uint32_t workers);

// The DPDK port of a NIC that DPDK found at its start.
Result<uint16_t> find_nic(const std::string& device);
// Makes a virtual device; its name begins with its driver's. Returns its DPDK port.
Result<uint16_t> plug_in(const std::string& vdev, const std::string& arguments);

// Reads the link of an interface that was opened by a driver.
Result<void> note_link(const std::string& interface, const std::string& driver, LinkFacts& link);

}  // namespace tidegate::l4
