// SPDX-License-Identifier: Apache-2.0
#include "control/health/plane_watch.h"

#include <ifaddrs.h>

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

#include "conf/model/pool.h"
#include "conf/model/probe.h"
#include "conf/model/service.h"
#include "conf/model/site.h"
#include "conf/plane_health.h"
#include "conf/vip_holder.h"
#include "control/api/json_bounds.h"
#include "control/limits.h"
#include "core/clock.h"
#include "core/log.h"

namespace tidegate {

namespace {

using nlohmann::json;

constexpr uint64_t kTickMs = 100;
constexpr uint64_t kLateTickNs = 300 * kNsPerMs;  // a later tick means that this process did not run
constexpr uint64_t kProbeTimeoutMs = 400;
constexpr uint64_t kConnectAgainNs = 200 * kNsPerMs;
// If nothing comes on a connection for this long, it is opened again. The time doubles with each connection that brings
// nothing.
constexpr uint64_t kPatienceNs = 500 * kNsPerMs;
constexpr uint64_t kLongestPatienceNs = 4'000 * kNsPerMs;
constexpr uint64_t kProbePauseNs = 250 * kNsPerMs;  // between two rounds
constexpr size_t kMostProbes = 4;                   // addresses of one plane
constexpr std::string_view kPrefix = "plane/";
constexpr const char* kChangesHelp = "Verdicts on planes, by the state that they gave.";
constexpr const char* kProbesHelp = "Probes of the clients' way to planes of silent hosts, by result.";

void add(std::vector<ProbeTarget>& targets, const ProbeTarget& target) {
  if (target.endpoint.port == 0 && !target.echo) return;
  if (std::find(targets.begin(), targets.end(), target) != targets.end()) return;
  if (targets.size() < kMostProbes) targets.push_back(target);
}

void add(std::vector<ProbeTarget>& targets, const IpAddress& address, uint16_t port) {
  ProbeTarget target;
  target.endpoint = {address, port};
  add(targets, target);
}

// The probe that shows whether the VIP of a UDP service is served: the probe of the pool if it has one, else ICMP echo.
ProbeTarget udp_target(const Model& model, const Service& service, const IpAddress& vip) {
  ProbeTarget target;
  const uint32_t probe = model.pools[service.pool].probe;
  if (probe != kNone && (model.probes[probe].type == ProbeType::udp || model.probes[probe].type == ProbeType::dns)) {
    target = probe_target(model.probes[probe], Backend{});
    target.endpoint.port = service.port;
  } else {
    target.echo = true;
  }
  target.endpoint.address = vip;
  return target;
}

// The probes of the VIPs that answer only if this node's forwarder does.
void add_services(const Model& model, const std::vector<NodeStatus>& planes, uint32_t node, Protocol protocol,
                  std::vector<ProbeTarget>& targets) {
  bool shares = false;
  std::vector<ProbeTarget> held;
  const Forwarders forwarders(model);
  for (const Service& service : model.services) {
    const Vip& vip = model.vips[service.vip];
    const bool ours = vip.site == kNone || vip.site == model.nodes[node].site;
    if (!ours || service.protocol != protocol || vip.addresses.empty()) continue;
    const IpAddress& address = vip.addresses.front();
    const uint32_t holder = holder_of(forwarders, planes, service.vip, address);
    shares = shares || holder != kNone;
    std::vector<ProbeTarget>& found = holder == node ? held : targets;
    if (protocol == Protocol::udp) {
      add(found, udp_target(model, service, address));
    } else {
      add(found, address, service.port);
    }
  }
  if (shares) targets = std::move(held);
}

// A proxy is reached at the addresses that pools have for it.
void add_backends(const Model& model, uint32_t node, std::vector<ProbeTarget>& targets) {
  for (uint32_t p = 0; p < model.pools.size(); ++p) {
    for (const Backend& backend : model.pools[p].backends) {
      if (backend.node != node || backend.addresses.empty()) continue;
      if (plane_of_backend(model, p, backend) != PlaneKind::l7) continue;
      if (backend.port != 0) add(targets, backend.addresses.front(), backend.port);
      for (const Service& service : model.services) {
        if (backend.port != 0 || service.pool != p || service.protocol != Protocol::tcp) continue;
        add(targets, backend.addresses.front(), service.port);
      }
    }
  }
}

// An address of this host says nothing about another host. A proxy also has the VIP of its site.
void remove_own_addresses(std::vector<ProbeTarget>& targets) {
  ifaddrs* list = nullptr;
  if (::getifaddrs(&list) != 0) return;
  for (const ifaddrs* each = list; each != nullptr; each = each->ifa_next) {
    if (each->ifa_addr == nullptr) continue;
    const int family = each->ifa_addr->sa_family;
    if (family != AF_INET && family != AF_INET6) continue;
    sockaddr_storage storage{};
    std::memcpy(&storage, each->ifa_addr, family == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6));
    const IpAddress own = Endpoint::from(storage).address;
    std::erase_if(targets, [&](const ProbeTarget& target) { return target.endpoint.address == own; });
  }
  ::freeifaddrs(list);
}

}  // namespace

std::vector<ProbeTarget> probes_of(const Model& model, const std::vector<NodeStatus>& planes, uint32_t node,
                                   PlaneKind kind) {
  std::vector<ProbeTarget> targets;
  if (kind == PlaneKind::l4) {
    add_services(model, planes, node, Protocol::tcp, targets);
    if (targets.empty()) add_services(model, planes, node, Protocol::udp, targets);
  }
  if (kind == PlaneKind::l7) add_backends(model, node, targets);
  if (kind == PlaneKind::dns) {
    for (const Endpoint& endpoint : model.nodes[node].dns.listen) {
      if (endpoint.address != *IpAddress::parse("0.0.0.0") && endpoint.address != *IpAddress::parse("::"))
        add(targets, endpoint.address, endpoint.port);
    }
  }
  return targets;
}

struct PlaneWatch::Round {
  std::string plane;
  size_t pending = 0;
  bool success = false;
  bool looked = true;  // false: this host could not send one of the probes
  std::string why;
};

PlaneWatch::PlaneWatch(EventLoop& loop, HostState& host_state, Fleet& fleet, OwnPlanes& own, VerdictWriter& writer)
    : loop_(loop),
      host_state_(host_state),
      fleet_(fleet),
      own_(own),
      writer_(writer),
      timer_(loop, [this] { tick(); }),
      answered_(metrics().counter("tidegate_control_plane_probes_total", kProbesHelp, {{"result", "success"}})),
      unanswered_(metrics().counter("tidegate_control_plane_probes_total", kProbesHelp, {{"result", "failure"}})),
      to_up_(metrics().counter("tidegate_control_plane_changes_total", kChangesHelp, {{"to", "up"}})),
      to_draining_(metrics().counter("tidegate_control_plane_changes_total", kChangesHelp, {{"to", "draining"}})),
      to_down_(metrics().counter("tidegate_control_plane_changes_total", kChangesHelp, {{"to", "down"}})) {
  update();
}

PlaneWatch::~PlaneWatch() = default;

const Node* PlaneWatch::find(const std::string& node) const {
  const std::shared_ptr<const Model> model = host_state_.model();
  const uint32_t index = model ? model->node_index(node) : kNone;
  return index == kNone ? nullptr : &model->nodes[index];
}

void PlaneWatch::update() {
  const std::shared_ptr<const Model> model = host_state_.model();
  if (!model) return;
  const std::string own = fleet_.own_node();
  std::erase_if(peers_, [&](const auto& each) {
    const uint32_t index = model->node_index(each.first);
    return index == kNone || each.first == own || !model->nodes[index].management;
  });
  for (const Node& node : model->nodes) {
    if (node.name == own || !node.management || Fleet::planes_of(node).empty()) continue;
    peers_.try_emplace(node.name, loop_.now_ns());
  }
  remove_stale();
  if (!timer_.armed()) timer_.arm_after_ms(0);
}

void PlaneWatch::remove_stale() {
  const std::shared_ptr<const Model> model = host_state_.model();
  std::map<std::string, bool> known;
  for (const Node& node : model->nodes) {
    for (const std::string& plane : Fleet::planes_of(node)) known[plane_key(node.name, plane)] = true;
  }
  const auto is_stale = [&](const std::string& key) {
    return key.compare(0, kPrefix.size(), kPrefix) == 0 && known.count(key) == 0;
  };
  const std::shared_ptr<const LiveState> live_state = host_state_.live_state();
  for (const auto& [key, record] : live_state->health) {
    if (is_stale(key)) writer_.note(key, std::nullopt);
  }
  for (auto& [key, record] : writer_.pending()) {
    if (is_stale(key)) record = std::nullopt;
  }
  std::erase_if(guards_, [&](const auto& each) { return is_stale(each.first); });
}

size_t PlaneWatch::silent_hosts() const {
  const uint64_t now_ns = loop_.now_ns();
  return static_cast<size_t>(std::count_if(peers_.begin(), peers_.end(),
                                           [&](const auto& each) { return each.second.hearing.is_silent(now_ns); }));
}

void PlaneWatch::tick() {
  timer_.arm_after_ms(kTickMs);
  const uint64_t now_ns = loop_.now_ns();
  const uint64_t since_ns = last_tick_ns_ == 0 ? 0 : now_ns - last_tick_ns_;
  last_tick_ns_ = now_ns;
  for (auto& [node, peer] : peers_) {
    if (since_ns > kLateTickNs) peer.hearing.on_pause(since_ns);
    if (peer.under_way == 0) peer.attempts.clear();
    const uint64_t waited_ns = now_ns - std::max(peer.connected_ns, peer.heard_ns);
    const bool open = peer.stream != nullptr && !peer.ended;
    const bool again = waited_ns > (open ? peer.patience_ns : kConnectAgainNs);
    if (peer.connected_ns == 0 || again) connect(node, peer);
    const bool due = peer.under_way == 0 && now_ns - peer.probed_ns >= kProbePauseNs;
    if (due && peer.hearing.wants_probes(now_ns)) probe(node, peer);
  }
  judge_all();
}

void PlaneWatch::connect(const std::string& name, Peer& peer) {
  const Node* node = find(name);
  if (node == nullptr) return;
  peer.stream.reset();
  peer.buffer.clear();
  peer.ended = false;
  peer.patience_ns = peer.heard_ns > peer.connected_ns || peer.patience_ns == 0
                         ? kPatienceNs
                         : std::min(2 * peer.patience_ns, kLongestPatienceNs);
  peer.connected_ns = loop_.now_ns();
  peer.stream = fleet_.stream_from_node(
      *node, "/v1/node/planes", [this, &peer](std::string_view bytes) { take(peer, bytes); },
      [this, &peer](const Result<HttpResponse>& response) {
        peer.ended = true;
        // If a control answers anything else, it is of an earlier release, or does not trust this one. But it is alive.
        if (response && response->status != 200) peer.hearing.on_heard(loop_.now_ns());
      });
}

void PlaneWatch::take(Peer& peer, std::string_view bytes) {
  if (peer.ended) return;
  peer.buffer.append(bytes);
  size_t start = 0;
  for (size_t end = peer.buffer.find('\n'); end != std::string::npos; end = peer.buffer.find('\n', start)) {
    take_line(peer, std::string_view(peer.buffer).substr(start, end - start));
    start = end + 1;
  }
  peer.buffer.erase(0, start);
  if (peer.buffer.size() > kPlaneLineBytes) peer.ended = true;
  judge_all();
}

void PlaneWatch::take_line(Peer& peer, std::string_view text) {
  const Result<json> line = parse_json(text);
  const auto planes = line && line->is_object() ? line->find("planes") : json::const_iterator();
  if (!line || !line->is_object() || planes == line->end() || !planes->is_object()) {
    peer.ended = true;  // it is not what a control sends
    return;
  }
  peer.heard_ns = loop_.now_ns();
  peer.patience_ns = 4 * kPlaneReportMs * kNsPerMs;
  peer.hearing.on_heard(peer.heard_ns);
  peer.said.clear();
  for (const PlaneKind kind : kPlaneKinds) {
    const auto told = planes->find(name(kind));
    if (told == planes->end()) continue;
    peer.said[name(kind)] = {bool_member(*told, "up"), string_member(*told, "reason").substr(0, kPlaneReasonBytes), 0,
                             bool_member(*told, "drains")};
  }
}

void PlaneWatch::probe(const std::string& node, Peer& peer) {
  const std::shared_ptr<const Model> model = host_state_.model();
  const uint32_t index = model ? model->node_index(node) : kNone;
  if (index == kNone) return;
  peer.probed_ns = loop_.now_ns();
  const std::vector<NodeStatus> planes = plane_states(*model, *host_state_.live_state());
  for (const PlaneKind kind : kPlaneKinds) {
    if (!runs(model->nodes[index], kind)) continue;
    std::vector<ProbeTarget> targets = probes_of(*model, planes, index, kind);
    remove_own_addresses(targets);
    const auto round = std::make_shared<Round>();
    round->plane = name(kind);
    round->pending = targets.size();
    for (ProbeTarget& target : targets) {
      target.timeout_ms = kProbeTimeoutMs;
      const std::string asked =
          target.echo ? "ICMP echo to " + target.endpoint.address.to_string() : target.endpoint.to_string();
      ++peer.under_way;
      peer.attempts.push_back(start_probe(loop_, target, [this, &peer, round, asked](const ProbeResult& result) {
        --peer.under_way;
        if (result.looked) {
          (result.success ? answered_ : unanswered_).add();
          round->success |= result.success;
          round->why = asked + ": " + result.reason;
        } else {
          round->looked = false;
          say_cannot_probe(asked, result.reason);
        }
        if (--round->pending != 0) return;
        // If this host could not send one of the probes, the round counts only if another probe succeeded.
        if (round->success || round->looked) peer.hearing.on_probe(round->plane, round->success, round->why);
      }));
    }
  }
}

// Once a minute, because a host that may not send a probe tries it several times a second.
void PlaneWatch::say_cannot_probe(const std::string& asked, const std::string& why) {
  constexpr uint64_t kAgainNs = 60 * kNsPerS;
  if (cannot_probe_ns_ != 0 && loop_.now_ns() - cannot_probe_ns_ < kAgainNs) return;
  cannot_probe_ns_ = loop_.now_ns();
  log_warn("planes of a silent host cannot be judged: {}: {}", asked, why);
}

bool PlaneWatch::is_cut_off(uint64_t now_ns) const {
  return peers_.size() > 1 && std::all_of(peers_.begin(), peers_.end(), [&](const auto& each) {
           return each.second.hearing.is_silent(now_ns) && !each.second.hearing.any_success();
         });
}

void PlaneWatch::judge_all() {
  if (!host_state_.model()) return;
  for (const auto& [plane, verdict] : own_.verdicts()) judge(fleet_.own_node(), plane, verdict);
  const uint64_t now_ns = loop_.now_ns();
  const bool cut_off = is_cut_off(now_ns);
  for (const auto& [name, peer] : peers_) {
    const Node* node = find(name);
    if (node == nullptr) continue;
    for (const std::string& plane : Fleet::planes_of(*node)) {
      if (!peer.hearing.is_silent(now_ns)) {
        const auto said = peer.said.find(plane);
        if (said != peer.said.end()) judge(name, plane, said->second);
      } else if (const auto found = peer.hearing.verdict(plane); found && !cut_off) {
        judge(name, plane, *found);
      }
    }
  }
}

void PlaneWatch::judge(const std::string& node, const std::string& plane, const HealthVerdict& found) {
  const std::string key = plane_key(node, plane);
  const HealthVerdict before = writer_.latest(key).value_or(HealthVerdict{true, "", 0});
  if (badness(found) == badness(before)) return;
  const uint64_t now_ns = loop_.now_ns();
  ReturnGuard& guard = guards_[key];
  if (badness(found) > badness(before)) {
    guard.on_worse(now_ns);
  } else if (!guard.may_return(now_ns)) {
    return;  // the next tick asks again
  }
  (found.up ? to_up_ : found.drains ? to_draining_ : to_down_).add();
  if (found.up) {
    log_info("{} of node {} is up", plane, node);
  } else {
    log_warn("{} of node {} {}: {}", plane, node, found.drains ? "gets no new work" : "is down", found.reason);
  }
  writer_.note(key, HealthVerdict{found.up, found.reason, realtime_ns(), found.drains});
}

}  // namespace tidegate
