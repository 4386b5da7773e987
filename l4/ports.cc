// SPDX-License-Identifier: Apache-2.0
#include "l4/ports.h"

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
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <filesystem>
#include <fstream>
#include <set>

#include "conf/model/pool.h"
#include "core/fd.h"
#include "core/log.h"
#include "l4/eal.h"

namespace tidegate::l4 {
namespace {

// Enough for a full receive ring, a full transmit ring and what a worker holds; 20 MB per queue.
constexpr unsigned kBuffersPerQueue = 8'191;
constexpr unsigned kBufferCache = 256;
constexpr uint16_t kDescriptors = 1'024;
// A frame has at most two tags. AF_XDP keeps room before a frame for programs, and needs buffers of one page.
constexpr uint32_t kFrameOverhead = kEthernetBytes + 2 * kTagBytes, kXdpHeadroom = 256;
constexpr uint32_t kXdpMostMtu = 3'498;
constexpr uint32_t kPacketHeadroom = 128;  // bytes before a frame in af_packet's ring
constexpr uint32_t kMostRingFrame = 16'384;
// af_packet copies frames, so buffers are needed only for what a worker holds
constexpr unsigned kLargeBuffersPerQueue = 2'047;
// a full receive ring, a full transmit ring, and what a worker holds
constexpr unsigned kJumboBuffersPerQueue = 4'095;
constexpr std::streamsize kCaptureHeaderBytes = 24;

// The process's descriptors of sockets through which a poll mode driver receives.
std::set<int> packet_sockets() {
  std::set<int> found;
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd", ignored)) {
    const int fd = std::atoi(entry.path().filename().c_str());
    int domain = 0;
    socklen_t length = sizeof domain;
    if (::getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &length) != 0) continue;
    if (domain == AF_XDP || domain == AF_PACKET) found.insert(fd);
  }
  return found;
}

// The process's descriptors of BPF maps and programs.
std::set<int> bpf_objects() {
  std::set<int> found;
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd", ignored)) {
    const std::filesystem::path target = std::filesystem::read_symlink(entry.path(), ignored);
    if (target.native().starts_with("anon_inode:bpf")) found.insert(std::atoi(entry.path().filename().c_str()));
  }
  return found;
}

ino_t inode_of(int fd) {
  struct stat status {};
  return ::fstat(fd, &status) == 0 ? status.st_ino : 0;
}

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

std::string error_text(int negative_errno) { return rte_strerror(negative_errno < 0 ? -negative_errno : rte_errno); }

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

rte_mempool* make_buffers(const std::string& name, unsigned count, uint32_t bytes, int node) {
  return rte_pktmbuf_pool_create(name.c_str(), count, kBufferCache, 0, static_cast<uint16_t>(bytes), node);
}

// A capture that is received repeatedly (infinite_rx) occupies packet buffers while the device is open.
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

}  // namespace

namespace {

// Closes what a driver left open.
void close_left(const std::vector<std::pair<int, ino_t>>& sockets, const std::vector<int>& bpf_fds) {
  for (const auto& [fd, inode] : sockets) {
    if (inode != 0 && inode_of(fd) == inode) ::close(fd);
  }
  const std::set<int> left = bpf_objects();
  for (const int fd : bpf_fds) {
    if (left.contains(fd)) ::close(fd);
  }
}

// The buffer and the slot in af_packet's ring that frames of an interface need.
uint32_t xdp_buffer_bytes(uint32_t mtu) { return RTE_PKTMBUF_HEADROOM + kXdpHeadroom + mtu + kFrameOverhead; }
uint32_t ring_bytes(uint32_t mtu) { return std::bit_ceil(std::max(mtu + kFrameOverhead + kPacketHeadroom, 2'048u)); }

Result<void> note_link(const std::string& interface, const std::string& driver, LinkFacts& link) {
  Result<LinkFacts> facts = read_link(interface);
  if (!facts) return facts.error();
  link = *facts;
  if (driver != "af_xdp") link.xdp_program = 0;  // another program's id, not ours
  return {};
}

}  // namespace

Port::Descriptors Port::driver_descriptors() { return {packet_sockets(), bpf_objects()}; }

Port::Descriptors Port::new_since(const Descriptors& before) {
  const Descriptors after = driver_descriptors();
  Descriptors fresh;
  std::set_difference(after.sockets.begin(), after.sockets.end(), before.sockets.begin(), before.sockets.end(),
                      std::inserter(fresh.sockets, fresh.sockets.end()));
  std::set_difference(after.bpf.begin(), after.bpf.end(), before.bpf.begin(), before.bpf.end(),
                      std::inserter(fresh.bpf, fresh.bpf.end()));
  return fresh;
}

Result<void> BufferStock::add(unsigned count, uint32_t bytes) {
  rte_mempool* buffers = make_buffers(fmt::format("stock{}", made_++), count, bytes, SOCKET_ID_ANY);
  if (buffers == nullptr) return fail(fmt::format("packet buffers: {}; raise l4.memory", error_text(0)));
  pools_.push_back({count, bytes, buffers});
  return {};
}

rte_mempool* BufferStock::take(unsigned count, uint32_t bytes) {
  const auto fits = [&](const Pool& pool) { return pool.count == count && pool.bytes == bytes; };
  const auto pool = std::find_if(pools_.begin(), pools_.end(), fits);
  if (pool == pools_.end()) return nullptr;
  rte_mempool* const buffers = pool->buffers;
  pools_.erase(pool);
  return buffers;
}

void BufferStock::clear() {
  for (const Pool& pool : pools_) rte_mempool_free(pool.buffers);
  pools_.clear();
}

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

// Stopping an AF_XDP device removes its XDP program from the interface. But its driver leaves two things open: a BPF
// map, and the sockets, which stay bound to their queues so that nobody could open those again. They are closed here.
// Only this thread opens such descriptors.
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

namespace {

PortCounts counts_of(uint16_t device) {
  rte_eth_stats stats{};
  if (rte_eth_stats_get(device, &stats) != 0) return {};
  return {stats.ipackets, stats.opackets, stats.imissed, stats.ierrors, stats.rx_nombuf, stats.oerrors};
}

bool is_link_up(uint16_t device) {
  rte_eth_link link{};
  return rte_eth_link_get_nowait(device, &link) != 0 || link.link_status == RTE_ETH_LINK_UP;
}

}  // namespace

PortCounts Port::counts_now() const {
  PortCounts counts;
  for (const uint16_t device : started_) counts.add(counts_of(device));
  return counts;
}

PortCounts Port::member_counts(size_t member) const {
  return members_[member].id ? counts_of(*members_[member].id) : PortCounts{};
}

BondMemberState Port::member_state(size_t member) const {
  if (!is_open() || !members_[member].id) return {};
  return state_of_member(bond_, started_.front(), *members_[member].id);
}

PortCounts Port::counts() const {
  PortCounts counts = past_;
  counts.add(counts_now());
  return counts;
}

bool Port::has_carrier() const {
  if (driver_ != "pci") return true;
  return std::all_of(started_.begin(), started_.end(), is_link_up);
}

bool Port::has_carrier(const PortMember& member) const {
  return member.id && (driver_ != "pci" || is_link_up(*member.id));
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

void Port::set_members(const L4Port& config) {
  for (const std::string& device : config.members) members_.push_back({device, {}, {}});
  if (!members_.empty()) bond_ = config.bond;
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

namespace {

// XDP passes the frames of a queue without a socket to the kernel. They would bypass the forwarder unnoticed.
Result<void> check_channels(const std::string& interface, uint32_t workers) {
  const uint32_t channels = receive_channels(interface);
  if (channels <= workers) return {};
  return fail(fmt::format("{} receive queues, but {} workers (ethtool -L {} to lower, or raise workers)", channels,
                          workers, interface));
}

// busy_budget=0: no preferred busy polling, so that poll(2) can wait (an idle worker sleeps).
std::string xdp_arguments(const std::string& interface, uint32_t first_queue, uint32_t queues) {
  return fmt::format("iface={},start_queue={},queue_count={},busy_budget=0", interface, first_queue, queues);
}

std::string packet_arguments(const std::string& interface, uint32_t queues, uint32_t frame_bytes) {
  return fmt::format("iface={},qpairs={},qdisc_bypass=1,framesz={},blocksz={}", interface, queues, frame_bytes,
                     std::max(frame_bytes, 4'096u));
}

Result<uint16_t> find_nic(const std::string& device) {
  uint16_t id = 0;
  const int status = rte_eth_dev_get_port_by_name(device.c_str(), &id);
  if (status != 0) return fail(fmt::format("no such device, or no driver took it ({})", error_text(status)));
  return id;
}

}  // namespace

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
    if (workers != 1) return fail("pcap has one queue: workers must be 1");
    return open_vdev("net_pcap", pcap_arguments(device_), 0, 1, frames_kept(device_));
  }
  if (driver == "pci") {
    const Result<uint16_t> device = find_nic(device_);
    if (!device) return device.error();
    return start_device(*device, 0, static_cast<uint16_t>(workers), 0);
  }
  return fail("unknown driver");
}

// A host goes on with the members that it has: one of them may be broken.
Result<void> Port::open_bond(const std::string& driver, uint32_t workers) {
  driver_ = driver;
  std::string why;
  for (size_t member = 0; member < members_.size(); ++member) {
    Result<void> done = open_member(member);
    if (done) done = bond_vdev_.empty() ? begin_bond(member, workers) : join(member);
    if (done) continue;
    why += fmt::format("{}{}: {}", why.empty() ? "" : "; ", members_[member].device, done.error().message);
    if (!bond_vdev_.empty() && !is_running_) break;
  }
  if (!is_running_) return fail(why);
  if (!why.empty()) log_warn("port {}: {}; it goes on without", device_, why);
  return {};
}

// Makes the bond of its first member, and starts it.
Result<void> Port::begin_bond(size_t member, uint32_t workers) {
  const std::string vdev = fmt::format("net_bonding{}", index_);
  const Descriptors before = driver_descriptors();
  const Result<uint16_t> bond = make_bond(vdev, bond_, *members_[member].id);
  if (!bond) {
    close_member(member);
    return bond.error();
  }
  bond_vdev_ = vdev;
  Result<void> started = start_device(*bond, 0, static_cast<uint16_t>(workers), 0);
  note_member(before, member);
  is_running_ = static_cast<bool>(started);
  if (started && is_kernel_interface()) return note_link(members_[member].device, driver_, members_[member].link);
  return started;
}

Result<void> Port::open_member(size_t member) {
  const Descriptors before = driver_descriptors();
  const Result<uint16_t> id = open_device_of(driver_, member, static_cast<uint32_t>(queues_.size()));
  if (!id) return id.error();
  members_[member].id = *id;
  note_member(before, member);
  return {};
}

Result<void> Port::join(size_t member) {
  const Descriptors before = driver_descriptors();
  const Result<void> added = add_to_bond(started_.front(), *members_[member].id);
  if (!added) {
    close_member(member);
    return added;
  }
  note_member(before, member);
  if (!is_kernel_interface()) return {};
  if (Result<void> noted = note_link(members_[member].device, driver_, members_[member].link); !noted) return noted;
  return read_links(driver_);
}

void Port::part(size_t member) {
  take_from_bond(started_.front(), *members_[member].id);
  close_member(member);
  if (is_kernel_interface()) static_cast<void>(read_links(driver_));
}

void Port::close_member(size_t index) {
  PortMember& member = members_[index];
  if (!member.id) return;
  std::vector<std::pair<int, ino_t>> sockets;
  for (const int fd : member.sockets) sockets.emplace_back(fd, inode_of(fd));
  rte_eth_dev_stop(*member.id);
  rte_eth_dev_close(*member.id);
  if (!member.vdev.empty()) rte_eal_hotplug_remove("vdev", member.vdev.c_str());
  close_left(sockets, member.bpf_fds);
  for (PortQueue& queue : queues_) {
    std::erase_if(queue.wake_fds, [&](int fd) {
      return std::find(member.sockets.begin(), member.sockets.end(), fd) != member.sockets.end();
    });
  }
  PortMember closed;
  closed.device = member.device;
  closed.link = member.link;
  member = std::move(closed);
}

Result<uint16_t> Port::open_device_of(const std::string& driver, size_t index, uint32_t workers) {
  PortMember& member = members_[index];
  if (driver == "pci") return find_nic(member.device);
  const auto plug = [&](const std::string& arguments) {
    const std::string vdev = fmt::format("net_{}{}_m{}", driver, index_, index);
    Result<uint16_t> id = plug_in(vdev, arguments);
    if (id) member.vdev = vdev;
    return id;
  };
  if (driver == "pcap") return plug(pcap_arguments(member.device));
  const Result<LinkFacts> facts = read_link(member.device);
  if (!facts) return facts.error();
  if (!facts->exists) return fail("no such interface");
  if (xdp_buffer_bytes(facts->mtu) > buffer_bytes_ && driver == "af_xdp") return fail("its MTU has grown");
  if (ring_bytes(facts->mtu) > ring_frame_bytes_ && driver == "af_packet") return fail("its MTU has grown");
  if (driver == "af_packet") return plug(packet_arguments(member.device, workers, ring_frame_bytes_));
  if (const Result<void> checked = check_channels(member.device, workers); !checked) return checked.error();
  return plug(xdp_arguments(member.device, 0, workers));
}

Result<uint16_t> Port::plug_in(const std::string& vdev, const std::string& arguments) {
  if (const int status = rte_eal_hotplug_add("vdev", vdev.c_str(), arguments.c_str()); status != 0) {
    return fail(fmt::format("{} ({})", error_text(status), arguments));
  }
  uint16_t device = 0;
  if (rte_eth_dev_get_port_by_name(vdev.c_str(), &device) == 0) return device;
  rte_eal_hotplug_remove("vdev", vdev.c_str());
  return fail("device did not appear");
}

Result<void> Port::open_vdev(const std::string& driver, const std::string& arguments, uint32_t first_worker,
                             uint16_t queues, unsigned frames_kept) {
  const Descriptors before = driver_descriptors();
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
void Port::note_descriptors(const Descriptors& before, uint32_t first_worker, uint16_t queues) {
  const Descriptors fresh = new_since(before);
  bpf_fds_.insert(bpf_fds_.end(), fresh.bpf.begin(), fresh.bpf.end());
  size_t queue = 0;
  for (const int fd : fresh.sockets) queues_[first_worker + queue++ % queues].wake_fds.push_back(fd);
}

void Port::note_member(const Descriptors& before, size_t member) {
  const Descriptors fresh = new_since(before);
  members_[member].bpf_fds.insert(members_[member].bpf_fds.end(), fresh.bpf.begin(), fresh.bpf.end());
  size_t queue = 0;
  for (const int fd : fresh.sockets) {
    members_[member].sockets.push_back(fd);
    queues_[queue++ % queues_.size()].wake_fds.push_back(fd);
  }
}

Result<void> Port::start_device(uint16_t device, uint32_t first_worker, uint16_t queues, unsigned frames_kept) {
  started_.push_back(device);  // from here on close() stops it, whatever fails below
  rte_eth_dev_info info{};
  if (const int status = rte_eth_dev_info_get(device, &info); status != 0) return fail(error_text(status));
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
    return fail("configure: " + error_text(status));
  }
  if (configured_mtu_ != 0) {
    // A driver without such a setting (pcap) takes frames of any length that fits in a buffer.
    const int status = rte_eth_dev_set_mtu(device, configured_mtu_);
    if (status != 0 && status != -ENOTSUP) {
      return fail(fmt::format("mtu {}: {}; the device takes {} to {}", configured_mtu_, error_text(status),
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
    if (pool == nullptr) return fail(fmt::format("packet buffers: {}; raise l4.memory", error_text(0)));
    buffers_.push_back(pool);
    int status = rte_eth_rx_queue_setup(device, queue, rx_descriptors, static_cast<unsigned>(node), nullptr, pool);
    if (status == 0)
      status = rte_eth_tx_queue_setup(device, queue, tx_descriptors, static_cast<unsigned>(node), nullptr);
    if (status != 0) return fail("queue: " + error_text(status));
    queues_[first_worker + queue] = {device, queue, pool, {}};
  }
  if (const int status = rte_eth_dev_start(device); status != 0) return fail("start: " + error_text(status));
  // Frames to solicited-node groups and broadcasts must reach us.
  if (rte_eth_allmulticast_enable(device) != 0) rte_eth_promiscuous_enable(device);

  rte_ether_addr mac{};
  if (const int status = rte_eth_macaddr_get(device, &mac); status != 0) return fail("MAC: " + error_text(status));
  identity_.mac = Mac::from(mac.addr_bytes);
  return {};
}

}  // namespace tidegate::l4
