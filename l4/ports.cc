// SPDX-License-Identifier: Apache-2.0
#include "l4/ports.h"

#include <fmt/format.h>
#include <rte_dev.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>

#include <algorithm>

#include "core/log.h"
#include "l4/drivers.h"
#include "l4/eal.h"

namespace tidegate::l4 {
namespace {

// Enough for a full receive ring, a full transmit ring and what a worker holds; 20 MB per queue.
constexpr unsigned kBuffersPerQueue = 8'191;
constexpr uint16_t kDescriptors = 1'024;
// af_packet copies frames, so buffers are needed only for what a worker holds
constexpr unsigned kLargeBuffersPerQueue = 2'047;
// a full receive ring, a full transmit ring, and what a worker holds
constexpr unsigned kJumboBuffersPerQueue = 4'095;

}  // namespace

Port::Port(Port&& other) noexcept
    : device_(std::move(other.device_)),
      driver_(std::move(other.driver_)),
      link_(other.link_),
      past_(other.past_),
      identity_(std::move(other.identity_)),
      buffer_bytes_(other.buffer_bytes_),
      ring_frame_bytes_(other.ring_frame_bytes_),
      buffers_per_queue_(other.buffers_per_queue_),
      index_(other.index_),
      configured_mtu_(other.configured_mtu_),
      bond_(std::move(other.bond_)),
      members_(std::exchange(other.members_, {})),
      bond_vdev_(std::exchange(other.bond_vdev_, {})),
      is_running_(other.is_running_),
      queues_(std::move(other.queues_)),
      started_(std::exchange(other.started_, {})),
      vdevs_(std::exchange(other.vdevs_, {})),
      bpf_fds_(std::exchange(other.bpf_fds_, {})),
      buffers_(std::exchange(other.buffers_, {})) {}

Port::~Port() { close(); }

// Stopping an AF_XDP device removes its XDP program from the interface. But DPDK's driver leaves two things open: a BPF
// map, and the sockets. Such a socket stays bound to its queue, and nobody could open the queue again. So both are
// closed here. Only this thread opens such descriptors.
void Port::close(BufferStock* spent) {
  std::vector<std::pair<int, ino_t>> sockets;
  for (const PortQueue& queue : queues_) {
    for (const int fd : queue.wake_fds) sockets.emplace_back(fd, inode_of(fd));
  }
  for (const uint16_t device : started_) {
    rte_eth_dev_stop(device);
    rte_eth_dev_close(device);
  }
  if (!bond_vdev_.empty()) free_bond(std::exchange(bond_vdev_, {}));
  is_running_ = false;
  for (size_t member = 0; member < members_.size(); ++member) close_member(member);
  for (const std::string& vdev : vdevs_) rte_eal_hotplug_remove("vdev", vdev.c_str());
  close_left(sockets, bpf_fds_);
  bpf_fds_.clear();
  for (PortQueue& queue : queues_) queue = PortQueue{};
  for (rte_mempool* pool : buffers_) spent == nullptr ? rte_mempool_free(pool) : spent->free_later(pool);
  started_.clear();
  vdevs_.clear();
  buffers_.clear();
}

void Port::shut() {
  past_.add(counts_now());
  close();
}

void Port::leave(BufferStock& spent) { close(&spent); }

Result<void> Port::open_again() {
  Result<void> opened = try_driver(driver_, static_cast<uint32_t>(queues_.size()));
  if (!opened) close();
  return opened;
}

void PortCounts::add(const PortCounts& other) {
  received += other.received;
  sent += other.sent;
  missed += other.missed;
  receive_errors += other.receive_errors;
  no_buffers += other.no_buffers;
  send_errors += other.send_errors;
}

PortCounts PortCounts::of(uint16_t device) {
  rte_eth_stats stats{};
  if (rte_eth_stats_get(device, &stats) != 0) return {};
  return {stats.ipackets, stats.opackets, stats.imissed, stats.ierrors, stats.rx_nombuf, stats.oerrors};
}

PortCounts Port::counts_now() const {
  PortCounts counts;
  for (const uint16_t device : started_) counts.add(PortCounts::of(device));
  return counts;
}

PortCounts Port::counts() const {
  PortCounts counts = past_;
  counts.add(counts_now());
  return counts;
}

bool Port::is_link_up(uint16_t device) {
  rte_eth_link link{};
  return rte_eth_link_get_nowait(device, &link) != 0 || link.link_status == RTE_ETH_LINK_UP;
}

bool Port::has_carrier() const {
  if (driver_ != "pci") return true;
  return std::all_of(started_.begin(), started_.end(), is_link_up);
}

namespace {

std::vector<std::string> drivers_of(const L4Port& config) {
  if (config.driver != "auto") return {config.driver};
  if (is_pci_port(config)) return {"pci"};
  // Without LACP, DPDK's bonding changes the MAC addresses of members, and its AF_XDP driver cannot.
  if (!config.members.empty() && config.bond != "lacp") return {"af_packet"};
  return {"af_xdp", "af_packet"};
}

}  // namespace

Result<void> Port::stock_up(const L4Port& config, uint32_t workers, BufferStock& stock) {
  Port port;
  port.device_ = config.device;
  port.configured_mtu_ = config.mtu;
  port.set_members(config);
  if (!config.shares.empty()) return {};
  for (const std::string& driver : drivers_of(config)) {
    if (!port.fit_buffers(driver)) continue;  // open() says why
    const unsigned kept = driver == "pcap" ? frames_kept(config.device) : 0;
    for (uint32_t worker = 0; worker < workers; ++worker) {
      if (Result<void> added = stock.add(port.buffers_per_queue_ + kept, port.buffer_bytes_); !added) return added;
    }
    break;
  }
  return {};
}

Result<Port> Port::open(const L4Port& config, uint16_t index, uint32_t workers, BufferStock& stock) {
  Port port;
  port.stock_ = &stock;
  port.device_ = config.device;
  port.index_ = index;
  port.configured_mtu_ = config.mtu;
  port.identity_.addresses = config.addresses;
  port.identity_.tags = {config.vlan, config.outer_vlan};
  port.set_members(config);
  port.queues_.resize(workers);

  const std::vector<std::string> drivers = drivers_of(config);
  std::string why;
  for (const std::string& driver : drivers) {
    const Result<void> opened = port.try_driver(driver, workers);
    if (opened) {
      port.driver_ = driver;
      port.stock_ = nullptr;
      log_info("port {}: driver {}, MAC {}", port.device_, driver, port.identity_.mac.to_string());
      return port;
    }
    port.close();
    why += (why.empty() ? "" : "; ") + driver + ": " + opened.error().message;
    if (driver != drivers.back()) log_warn("port {}: {}; falling back", port.device_, why);
  }
  return fail(fmt::format("port {}: {}", config.device, why));
}

Port Port::share(const L4Port& config, const Port& holder, uint16_t holder_index) {
  Port port;
  port.device_ = config.device;
  port.identity_.addresses = config.addresses;
  port.identity_.tags = {config.vlan, config.outer_vlan};
  port.identity_.arrives_by = holder_index;
  port.follow(holder);
  log_info(
      "port {}: VLAN {} of {}", port.device_,
      config.outer_vlan == 0 ? fmt::format("{}", config.vlan) : fmt::format("{}.{}", config.outer_vlan, config.vlan),
      holder.device_);
  return port;
}

void Port::follow(const Port& holder) {
  driver_ = holder.driver_;
  link_ = holder.link_;
  configured_mtu_ = holder.configured_mtu_;
  queues_ = holder.queues_;
  identity_.mac = holder.identity_.mac;
}

Result<void> Port::try_driver(const std::string& driver, uint32_t workers) {
  Result<void> opened = open_devices(driver, workers);
  if (!opened || (driver != "af_xdp" && driver != "af_packet")) return opened;
  return read_links(driver);
}

Result<void> Port::read_links(const std::string& driver) {
  if (members_.empty()) return note_link(device_, driver, link_);
  link_ = {};
  for (const PortMember& member : members_) {
    if (!member.id) continue;
    link_.exists = true;
    link_.up = link_.up || member.link.up;
    link_.mtu = link_.mtu == 0 ? member.link.mtu : std::min(link_.mtu, member.link.mtu);
  }
  return {};
}

std::vector<std::string> Port::devices() const {
  if (members_.empty()) return {device_};
  std::vector<std::string> all;
  for (const PortMember& member : members_) all.push_back(member.device);
  return all;
}

// Makes the buffers large enough for the interface's frames: `bytes` of data after the usual headroom.
Result<void> Port::fit_buffers(const std::string& driver) {
  buffer_bytes_ = RTE_MBUF_DEFAULT_BUF_SIZE;
  buffers_per_queue_ = kBuffersPerQueue;
  ring_frame_bytes_ = 0;
  if (driver != "af_xdp" && driver != "af_packet") {
    // One buffer is enough for the longest frame, so no frame comes in several segments.
    buffer_bytes_ = std::max(buffer_bytes_, RTE_PKTMBUF_HEADROOM + configured_mtu_ + kFrameOverhead);
    if (buffer_bytes_ > RTE_MBUF_DEFAULT_BUF_SIZE) buffers_per_queue_ = kJumboBuffersPerQueue;
  } else {
    std::string why;
    size_t fitting = 0;
    for (const std::string& interface : devices()) {
      const Result<void> fits = fit_buffers_to(interface, driver);
      if (fits) ++fitting;
      if (!fits) why += (why.empty() ? "" : "; ") + (members_.empty() ? "" : interface + ": ") + fits.error().message;
    }
    if (fitting == 0) return fail(why);
  }
  // The members of a bond take their buffers from the same pools.
  if (!members_.empty()) buffers_per_queue_ *= static_cast<unsigned>(members_.size());
  return {};
}

Result<void> Port::fit_buffers_to(const std::string& interface, const std::string& driver) {
  Result<LinkFacts> facts = read_link(interface);
  if (!facts) return facts.error();
  if (!facts->exists) return fail("no such interface");
  const uint32_t frame_bytes = facts->mtu + kFrameOverhead;
  if (driver == "af_xdp") {
    if (facts->mtu > kXdpMostMtu) {
      return fail(fmt::format("its MTU is {}, and AF_XDP takes frames of {} at most", facts->mtu, kXdpMostMtu));
    }
    buffer_bytes_ = std::max(buffer_bytes_, xdp_buffer_bytes(facts->mtu));
    return {};
  }
  if (frame_bytes + kPacketHeadroom > kMostRingFrame) {
    return fail(fmt::format("its MTU is {}: frames of {} bytes are the largest it takes", facts->mtu, kMostRingFrame));
  }
  ring_frame_bytes_ = std::max(ring_frame_bytes_, ring_bytes(facts->mtu));
  if (ring_frame_bytes_ > 2'048) {
    buffer_bytes_ = RTE_PKTMBUF_HEADROOM + ring_frame_bytes_;
    buffers_per_queue_ = kLargeBuffersPerQueue;
  }
  return {};
}

Result<void> Port::open_devices(const std::string& driver, uint32_t workers) {
  if (Result<void> fits = fit_buffers(driver); !fits) return fits;
  if (!members_.empty()) return open_bond(driver, workers);
  if (driver == "af_xdp") {
    if (Result<void> checked = check_channels(device_, workers); !checked) return checked;
    for (uint32_t worker = 0; worker < workers; ++worker) {
      const Result<void> opened = open_vdev("net_af_xdp", xdp_arguments(device_, worker, 1), worker, 1);
      if (!opened) return opened;
    }
    return {};
  }
  if (driver == "af_packet") {
    return open_vdev("net_af_packet", packet_arguments(device_, workers, ring_frame_bytes_), 0,
                     static_cast<uint16_t>(workers));
  }
  if (driver == "pcap") {
    const size_t queues = pcap_queues(device_);
    if (workers != queues) return fail(fmt::format("{} workers, but captures for {} queues", workers, queues));
    return open_vdev("net_pcap", pcap_arguments(device_), 0, static_cast<uint16_t>(queues), frames_kept(device_));
  }
  if (driver == "pci") {
    const Result<uint16_t> device = find_nic(device_);
    if (!device) return device.error();
    return start_device(*device, 0, static_cast<uint16_t>(workers), 0);
  }
  return fail("unknown driver");
}

Result<void> Port::open_vdev(const std::string& driver, const std::string& arguments, uint32_t first_worker,
                             uint16_t queues, unsigned frames_kept) {
  const DriverFiles before = driver_files();
  // the driver is recognised by the start of this name
  const std::string vdev = fmt::format("{}{}_{}", driver, index_, first_worker);
  const Result<uint16_t> device = plug_in(vdev, arguments);
  if (!device) return device.error();
  vdevs_.push_back(vdev);
  const Result<void> started = start_device(*device, first_worker, queues, frames_kept);
  note_descriptors(before, first_worker, queues);
  return started;
}

// Drivers open their queues in order, so the n-th new socket belongs to the n-th queue.
void Port::note_descriptors(const DriverFiles& before, uint32_t first_worker, uint16_t queues) {
  const DriverFiles fresh = new_since(before);
  bpf_fds_.insert(bpf_fds_.end(), fresh.bpf.begin(), fresh.bpf.end());
  size_t queue = 0;
  for (const int fd : fresh.sockets) queues_[first_worker + queue++ % queues].wake_fds.push_back(fd);
}

Result<void> Port::start_device(uint16_t device, uint32_t first_worker, uint16_t queues, unsigned frames_kept) {
  started_.push_back(device);  // from here on close() stops it, whatever fails below
  rte_eth_dev_info info{};
  if (const int status = rte_eth_dev_info_get(device, &info); status != 0) return fail(dpdk_error(status));
  if (queues > info.max_rx_queues || queues > info.max_tx_queues) {
    return fail(fmt::format("{} workers, but {} queues", queues, std::min(info.max_rx_queues, info.max_tx_queues)));
  }
  rte_eth_conf conf{};
  if (queues > 1 && info.flow_type_rss_offloads != 0) {
    conf.rxmode.mq_mode = RTE_ETH_MQ_RX_RSS;
    conf.rx_adv_conf.rss_conf.rss_hf =
        info.flow_type_rss_offloads & (RTE_ETH_RSS_IP | RTE_ETH_RSS_TCP | RTE_ETH_RSS_UDP);
  }
  if (const int status = rte_eth_dev_configure(device, queues, queues, &conf); status != 0) {
    return fail("configure: " + dpdk_error(status));
  }
  if (configured_mtu_ != 0) {
    // A driver without such a setting (pcap) takes frames of any length that fits in a buffer.
    const int status = rte_eth_dev_set_mtu(device, configured_mtu_);
    if (status != 0 && status != -ENOTSUP) {
      return fail(fmt::format("mtu {}: {}; the device takes {} to {}", configured_mtu_, dpdk_error(status),
                              info.min_mtu, info.max_mtu));
    }
  }
  uint16_t rx_descriptors = kDescriptors, tx_descriptors = kDescriptors;
  rte_eth_dev_adjust_nb_rx_tx_desc(device, &rx_descriptors, &tx_descriptors);
  const int node = rte_eth_dev_socket_id(device);
  for (uint16_t queue = 0; queue < queues; ++queue) {
    const unsigned count = buffers_per_queue_ + frames_kept;
    rte_mempool* pool = stock_ == nullptr ? nullptr : stock_->take(count, buffer_bytes_);
    if (pool == nullptr) pool = make_buffers(fmt::format("rx{}_{}", device, queue), count, buffer_bytes_, node);
    if (pool == nullptr) return fail(fmt::format("packet buffers: {}; raise l4.memory", dpdk_error(0)));
    buffers_.push_back(pool);
    int status = rte_eth_rx_queue_setup(device, queue, rx_descriptors, static_cast<unsigned>(node), nullptr, pool);
    if (status == 0)
      status = rte_eth_tx_queue_setup(device, queue, tx_descriptors, static_cast<unsigned>(node), nullptr);
    if (status != 0) return fail("queue: " + dpdk_error(status));
    queues_[first_worker + queue] = {device, queue, pool, {}};
  }
  if (const int status = rte_eth_dev_start(device); status != 0) return fail("start: " + dpdk_error(status));
  // Frames to solicited-node groups and broadcasts must reach us.
  if (rte_eth_allmulticast_enable(device) != 0) rte_eth_promiscuous_enable(device);

  rte_ether_addr mac{};
  if (const int status = rte_eth_macaddr_get(device, &mac); status != 0) return fail("MAC: " + dpdk_error(status));
  identity_.mac = Mac::from(mac.addr_bytes);
  return {};
}

}  // namespace tidegate::l4
