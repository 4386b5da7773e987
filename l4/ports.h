// SPDX-License-Identifier: Apache-2.0
// Ports: the devices of the forwarder, opened, configured and started through DPDK.
//
// Drivers: `pci` is a NIC bound to VFIO, or one with a bifurcated driver. `af_xdp` is a kernel interface whose frames
// XDP takes. `af_packet` is a kernel interface used through a raw socket; it is slower but works anywhere. `pcap` reads
// and writes files: "rx.pcap,tx.pcap", then further arguments of net_pcap. `auto` takes pci for a PCI address;
// otherwise af_xdp, or af_packet if XDP is refused.
//
// Each worker has its own queue on every port. A NIC and af_packet have several queues. Each queue of an AF_XDP
// interface is its own DPDK device. pcap has one queue.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "conf/model.h"
#include "core/result.h"
#include "l4/link_facts.h"
#include "l4/neighbour.h"

struct rte_mempool;

namespace tidegate::l4 {

// One worker's part of one port.
struct PortQueue {
  uint16_t device = 0;  // DPDK port id
  uint16_t queue = 0;
  rte_mempool* buffers = nullptr;
  // Descriptors that become readable when a frame comes; empty if the driver has none. Borrowed from the driver.
  std::vector<int> wake_fds;
};

// The device's counts since the process began, over all times that it was open.
struct PortCounts {
  uint64_t received = 0, sent = 0;
  uint64_t missed = 0;  // no room in the receive queue, or larger than a buffer
  uint64_t receive_errors = 0, no_buffers = 0, send_errors = 0;
  void add(const PortCounts& other);
};

// Packet buffers that are made before the ports that use them can be opened. To make them takes longer than all the
// rest of an open().
class BufferStock {
 public:
  BufferStock() = default;
  ~BufferStock() { clear(); }
  BufferStock(const BufferStock&) = delete;
  BufferStock& operator=(const BufferStock&) = delete;

  // An Error: there is too little memory.
  Result<void> add(unsigned count, uint32_t bytes);
  // Null: there are none of this count and size. The caller frees them.
  rte_mempool* take(unsigned count, uint32_t bytes);
  // Frees them with the others, and never gives them out: to free them takes longer than to close a port.
  void free_later(rte_mempool* buffers) { pools_.push_back({0, 0, buffers}); }
  void clear();

 private:
  struct Pool {
    unsigned count;
    uint32_t bytes;
    rte_mempool* buffers;
  };
  std::vector<Pool> pools_;
  unsigned made_ = 0;
};

class Port {
 public:
  // Uses buffers of `stock` if they fit.
  static Result<Port> open(const L4Port& config, uint16_t index, uint32_t workers, BufferStock& stock);
  // Makes the buffers that open() will probably need: for the first driver that it tries.
  static Result<void> stock_up(const L4Port& config, uint32_t workers, BufferStock& stock);
  ~Port();
  Port(Port&& other) noexcept;
  Port& operator=(Port&&) = delete;

  // A further VLAN of the device of `holder`, which is the port `holder_index`. It has the queues of `holder`, opens
  // nothing, and counts nothing.
  static Port share(const L4Port& config, const Port& holder, uint16_t holder_index);
  // Call when `holder` was opened again.
  void follow(const Port& holder);
  // The index of the port that opens the device, if this one does not.
  std::optional<uint16_t> holder() const { return identity_.arrives_by; }

  const PortIdentity& identity() const { return identity_; }
  const std::string& driver() const { return driver_; }
  const std::string& device() const { return device_; }
  bool is_kernel_interface() const { return driver_ == "af_xdp" || driver_ == "af_packet"; }
  bool is_open() const { return !started_.empty(); }
  bool has_carrier() const;                        // what the driver says
  const LinkFacts& link() const { return link_; }  // of a kernel interface, as it was when it was opened
  // The longest packet that the link takes; 0: not known. It comes from the kernel for a kernel interface, otherwise
  // from the configuration.
  uint32_t mtu() const { return is_kernel_interface() ? link_.mtu : configured_mtu_; }
  PortCounts counts() const;  // control thread
  // Between shut() and open_again() no worker may use the port or hold one of its buffers. The MAC address may change.
  void shut();
  // Closes it for another process, which waits for it. The buffers go to `spent`.
  void leave(BufferStock& spent);
  Result<void> open_again();

  const PortQueue& queue(uint32_t worker) const { return queues_[worker]; }

 private:
  Port() = default;
  Result<void> try_driver(const std::string& driver, uint32_t workers);
  Result<void> fit_buffers(const std::string& driver);
  Result<void> open_devices(const std::string& driver, uint32_t workers);
  // `frames_kept`: the number of buffers that a device never gives back.
  Result<void> open_vdev(const std::string& driver, const std::string& arguments, uint32_t first_worker,
                         uint16_t queues, unsigned frames_kept = 0);
  Result<void> start_device(uint16_t device, uint32_t first_worker, uint16_t queues, unsigned frames_kept);
  void close(BufferStock* spent = nullptr);

  PortCounts counts_now() const;

  std::string device_, driver_;
  LinkFacts link_;
  PortCounts past_;  // counts of devices that were closed
  PortIdentity identity_;
  uint32_t buffer_bytes_ = 0, ring_frame_bytes_ = 0;  // size of a packet buffer; size of a slot in af_packet's ring
  unsigned buffers_per_queue_ = 0;
  uint16_t index_ = 0, configured_mtu_ = 0;
  BufferStock* stock_ = nullptr;    // during open()
  std::vector<PortQueue> queues_;   // by worker
  std::vector<uint16_t> started_;   // DPDK ports to stop
  std::vector<std::string> vdevs_;  // virtual devices to remove
  std::vector<int> bpf_fds_;        // opened with the devices
  std::vector<rte_mempool*> buffers_;
};

}  // namespace tidegate::l4
