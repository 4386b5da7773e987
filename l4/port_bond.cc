// SPDX-License-Identifier: Apache-2.0
// A port that is a bond: its members are opened, join, leave and are closed.
#include <fmt/format.h>
#include <rte_dev.h>
#include <rte_ethdev.h>

#include <algorithm>

#include "core/log.h"
#include "l4/drivers.h"
#include "l4/ports.h"

namespace tidegate::l4 {

PortCounts Port::member_counts(size_t member) const {
  return members_[member].id ? PortCounts::of(*members_[member].id) : PortCounts{};
}

BondMemberState Port::member_state(size_t member) const {
  if (!is_open() || !members_[member].id) return {};
  return state_of_member(bond_, started_.front(), *members_[member].id);
}

bool Port::has_carrier(const PortMember& member) const {
  return member.id && (driver_ != "pci" || is_link_up(*member.id));
}

void Port::set_members(const L4Port& config) {
  for (const std::string& device : config.members) members_.push_back({device, {}, {}});
  if (!members_.empty()) bond_ = config.bond;
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

// Makes the bond with its first member, and starts the bond.
Result<void> Port::begin_bond(size_t member, uint32_t workers) {
  const std::string vdev = fmt::format("net_bonding{}", index_);
  const DriverFiles before = driver_files();
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
  const DriverFiles before = driver_files();
  const Result<uint16_t> id = open_device_of(driver_, member, static_cast<uint32_t>(queues_.size()));
  if (!id) return id.error();
  members_[member].id = *id;
  note_member(before, member);
  return {};
}

Result<void> Port::join(size_t member) {
  const DriverFiles before = driver_files();
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

void Port::note_member(const DriverFiles& before, size_t member) {
  const DriverFiles fresh = new_since(before);
  members_[member].bpf_fds.insert(members_[member].bpf_fds.end(), fresh.bpf.begin(), fresh.bpf.end());
  size_t queue = 0;
  for (const int fd : fresh.sockets) {
    members_[member].sockets.push_back(fd);
    queues_[queue++ % queues_.size()].wake_fds.push_back(fd);
  }
}

}  // namespace tidegate::l4
