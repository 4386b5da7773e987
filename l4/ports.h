// SPDX-License-Identifier: Apache-2.0
// Ports: the devices of the forwarder, opened, configured and started through DPDK.
//
// Drivers: `pci` is a NIC bound to VFIO, or one with a bifurcated driver. `af_xdp` is a kernel interface whose frames
// XDP takes. `af_packet` is a kernel interface used through a raw socket; it is slower but works anywhere. `pcap` reads
// and writes files: "rx.pcap,tx.pcap", then further arguments of net_pcap. `auto` takes pci for a PCI address;
// otherwise af_xdp, or af_packet if XDP is refused.
//
// Each worker has its own queue on every port. A NIC and af_packet have several queues. Each queue of an AF_XDP
// interface is its own DPDK device. pcap has one queue for each capture that is received. A port with members is a bond
// of them (bond.h), and all members have the same driver.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "conf/model/node.h"
#include "core/result.h"
#include "l4/bond.h"
#include "l4/buffer_stock.h"
#include "l4/driver_files.h"
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
  static PortCounts of(uint16_t device);  // since it was opened
};

// A device that a port bonds.
struct PortMember {
  std::string device;
  LinkFacts link;              // of a kernel interface, as it was when it was opened
  std::optional<uint16_t> id;  // its DPDK port; none: it is not open
  std::string vdev;            // its virtual device, if it has one
  // The descriptors that the driver has open.
  std::vector<int> sockets, bpf_fds;
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
  // Empty: it is no bond.
  const std::vector<PortMember>& members() const { return members_; }
  // By LACP, which needs that each worker's queue is used at least every 100 ms.
  bool is_agreed_by_lacp() const { return bond_ == "lacp"; }
  bool has_one_active_member() const { return bond_ == "active_backup"; }
  BondMemberState member_state(size_t member) const;
  PortCounts member_counts(size_t member) const;  // since it was opened
  // Opens the device of a member that is not open. The bond does not use it before join(). An Error: it stays closed.
  Result<void> open_member(size_t member);
  // No worker may use the port meanwhile. After an Error of join() the member is closed.
  Result<void> join(size_t member);
  void part(size_t member);  // and closes it; another one must be left in the bond
  void close_member(size_t member);
  bool is_kernel_interface() const { return driver_ == "af_xdp" || driver_ == "af_packet"; }
  bool is_open() const { return !started_.empty(); }
  bool has_carrier() const;  // what the driver says
  bool has_carrier(const PortMember& member) const;
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
  void set_members(const L4Port& config);
  Result<void> try_driver(const std::string& driver, uint32_t workers);
  Result<void> fit_buffers(const std::string& driver);
  Result<void> fit_buffers_to(const std::string& interface, const std::string& driver);
  Result<void> read_links(const std::string& driver);
  std::vector<std::string> devices() const;
  Result<void> open_devices(const std::string& driver, uint32_t workers);
  // `frames_kept`: the number of buffers that a device never gives back.
  Result<void> open_bond(const std::string& driver, uint32_t workers);
  Result<void> begin_bond(size_t member, uint32_t workers);
  Result<uint16_t> open_device_of(const std::string& driver, size_t member, uint32_t workers);
  void note_descriptors(const DriverFiles& before, uint32_t first_worker, uint16_t queues);
  void note_member(const DriverFiles& before, size_t member);
  static bool is_link_up(uint16_t device);
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
  BufferStock* stock_ = nullptr;  // during open()
  std::string bond_;              // how it uses its members; empty: it has none
  std::vector<PortMember> members_;
  std::string bond_vdev_;           // the bond's device in DPDK, while it is open
  bool is_running_ = false;         // the bond
  std::vector<PortQueue> queues_;   // by worker
  std::vector<uint16_t> started_;   // DPDK ports to stop
  std::vector<std::string> vdevs_;  // virtual devices to remove
  std::vector<int> bpf_fds_;        // opened with the devices
  std::vector<rte_mempool*> buffers_;
};

}  // namespace tidegate::l4
