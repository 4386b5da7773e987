// SPDX-License-Identifier: Apache-2.0
#include "dns/xdp/front.h"

#include <algorithm>

#include "conf/worker_count.h"
#include "core/log.h"
#include "dns/family_text.h"

namespace tidegate::dns {

XdpFront::XdpFront(const DnsNode& node, std::vector<Endpoint> listen, TablesPublisher& publisher,
                   const HashKey& cookie_secret)
    : listen_(std::move(listen)),
      workers_(worker_count(node.workers)),
      publisher_(publisher),
      cookie_secret_(cookie_secret) {
  for (const std::string& name : node.xdp) {
    doors_.push_back({name, {}, nullptr, {}});
    open(doors_.back());
  }
}

XdpFront::~XdpFront() { stop(); }

void XdpFront::open(Door& door) {
  auto opened = XdpInterface::open(door.name, listen_);
  if (!opened) {
    // Logged once, even if it is tried often.
    if (door.refused != opened.error().message) {
      log_warn("AF_XDP on {}: {}; its queries come through the kernel", door.name, opened.error().message);
    }
    door.refused = opened.error().message;
    return;
  }
  door.refused.clear();
  door.interface = *std::move(opened);
  const auto& sockets = door.interface->sockets();
  for (size_t i = 0; i < std::min<size_t>(workers_, sockets.size()); ++i) {
    door.servers.push_back(std::make_unique<XdpServer>(publisher_, cookie_secret_));
  }
  for (size_t i = 0; i < sockets.size(); ++i) door.servers[i % door.servers.size()]->add(*sockets[i]);
  for (const auto& server : door.servers) server->start();
  log_info("AF_XDP on {}: {} mode, {} queues, {}", door.name, door.interface->mode(), sockets.size(),
           sockets.front()->zero_copy() ? "zero-copy" : "copied");
}

void XdpFront::close(Door& door) {
  if (door.interface) door.interface->detach();
  for (const auto& server : door.servers) server->stop();
}

void XdpFront::tend(const std::function<void(const Worker&)>& leave) {
  for (Door& door : doors_) {
    if (door.interface && !door.interface->is_current(listen_)) {
      log_warn("AF_XDP on {}: the interface has changed or is gone", door.name);
      close(door);
      for (const auto& server : door.servers) leave(server->worker());
      door.servers.clear();
      door.interface.reset();
    }
    if (!door.interface) open(door);
  }
}

void XdpFront::stop() {
  for (Door& door : doors_) close(door);
}

void XdpFront::for_each_worker(const std::function<void(const Worker&)>& fn) const {
  for (const Door& door : doors_) {
    for (const auto& server : door.servers) fn(server->worker());
  }
}

std::vector<XdpState> XdpFront::states() const {
  std::vector<XdpState> states;
  for (const Door& door : doors_) {
    XdpState state;
    state.interface = door.name;
    state.refused = door.refused;
    if (door.interface) {
      state.mode = door.interface->mode();
      state.queues = door.interface->sockets().size();
      state.zero_copy = door.interface->sockets().front()->zero_copy();
    }
    states.push_back(std::move(state));
  }
  return states;
}

void XdpFront::append_metrics(std::string& out) const {
  const auto sum = [](const Door& door, auto&& count_of) {
    uint64_t total = 0;
    if (!door.interface) return total;
    for (const auto& socket : door.interface->sockets()) total += count_of(*socket);
    return total;
  };
  const auto counted = [](const Tally::Count& count) { return count.load(std::memory_order_relaxed); };
  FamilyText open(out, "tidegate_dns_xdp_open", "Whether queries on the interface come by AF_XDP.", "gauge");
  for (const Door& door : doors_) open.add(door.interface ? 1 : 0, {{"interface", door.name}});
  FamilyText frames(out, "tidegate_dns_xdp_frames_total", "Frames that came by AF_XDP, and answers that went back.");
  for (const Door& door : doors_) {
    const auto received = [&](const XdpSocket& socket) { return counted(socket.tally().received); };
    const auto answered = [&](const XdpSocket& socket) { return counted(socket.tally().answered); };
    frames.add(sum(door, received), {{"interface", door.name}, {"event", "received"}});
    frames.add(sum(door, answered), {{"interface", door.name}, {"event", "answered"}});
  }
  FamilyText faults(out, "tidegate_dns_xdp_faults_total", "Frames that were dropped outside of DNS.");
  for (const Door& door : doors_) {
    for (size_t i = 0; i < kFrameFaultCount; ++i) {
      const auto fault = [&](const XdpSocket& socket) { return counted(socket.tally().faults[i]); };
      faults.add(sum(door, fault), {{"interface", door.name}, {"fault", kFrameFaults[i]}});
    }
    const auto overruns = [](const XdpSocket& socket) { return socket.overruns(); };
    const auto unsent = [&](const XdpSocket& socket) { return counted(socket.tally().send_failed); };
    faults.add(sum(door, overruns), {{"interface", door.name}, {"fault", "overrun"}});
    faults.add(sum(door, unsent), {{"interface", door.name}, {"fault", "send_failed"}});
  }
}

}  // namespace tidegate::dns
