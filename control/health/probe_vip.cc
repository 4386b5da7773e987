// SPDX-License-Identifier: Apache-2.0
// The probe via the VIP: a forwarder of the VIP's site sends it to the VIP, with the backend's MAC address. This file
// makes the order, and evaluates the answer.
#include <fmt/format.h>

#include <algorithm>
#include <deque>
#include <iterator>
#include <nlohmann/json.hpp>
#include <optional>

#include "conf/byte_text.h"
#include "conf/model.h"
#include "conf/model/node.h"
#include "conf/model/pool.h"
#include "conf/model/probe.h"
#include "conf/model/service.h"
#include "conf/model/site.h"
#include "control/api/json_bounds.h"
#include "control/health/probe_attempt.h"
#include "control/health/probe_dns.h"
#include "control/limits.h"
#include "core/assert.h"
#include "core/crypto.h"

namespace tidegate {

namespace {

using nlohmann::json;

// Time for the way to the forwarder and back, in addition to the probe's own time.
constexpr uint64_t kProbeOrderWayMs = 1'000;

std::string to_hex(std::string_view bytes) {
  std::string hex;
  for (const char c : bytes) fmt::format_to(std::back_inserter(hex), "{:02x}", static_cast<uint8_t>(c));
  return hex;
}

// Stops at anything that is not hexadecimal.
std::string from_hex(std::string_view hex) {
  const auto digit = [](char c) { return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1; };
  std::string bytes;
  for (size_t i = 0; i + 1 < hex.size(); i += 2) {
    const int high = digit(hex[i]), low = digit(hex[i + 1]);
    if (high < 0 || low < 0) break;
    bytes.push_back(static_cast<char>(high << 4 | low));
  }
  return bytes;
}

// An order occupies a connection of the forwarder's admin socket until it is answered. Many silent backends must not
// occupy all connections, because the forwarder's health is checked over that socket. So attempts beyond kMaxVipProbes
// wait.
class VipAttempt;
struct VipTurns {
  size_t running = 0;
  std::deque<VipAttempt*> waiting;
};
VipTurns& vip_turns() {
  thread_local VipTurns turns;  // used by the control's loop only
  return turns;
}

class VipAttempt final : public ProbeAttempt {
 public:
  VipAttempt(EventLoop& loop, const ProbeTarget& target, ProbeDone done)
      : loop_(loop), target_(target), done_(std::move(done)) {
    const std::string random = random_bytes(2);
    dns_id_ = static_cast<uint16_t>(static_cast<uint8_t>(random[0]) << 8 | static_cast<uint8_t>(random[1]));
    if (!target_.door) {
      finish({false, "this control reaches no forwarder", false});
    } else if (target_.vips.empty()) {
      finish({false, "it has no address of a family of its VIPs"});
    } else {
      order_ = order();
      vip_turns().waiting.push_back(this);
      begin_waiting();
    }
  }
  ~VipAttempt() override {
    *self_ = nullptr;
    std::erase(vip_turns().waiting, this);
    end_turn();
  }

 private:
  static void begin_waiting() {
    VipTurns& turns = vip_turns();
    while (turns.running < kMaxVipProbes && !turns.waiting.empty()) {
      VipAttempt* const next = turns.waiting.front();
      turns.waiting.pop_front();
      next->has_turn_ = true;
      ++turns.running;
      next->ask(0);
    }
  }
  void end_turn() {
    if (!std::exchange(has_turn_, false)) return;
    --vip_turns().running;
    begin_waiting();
  }

  std::string order() const {
    json targets = json::array();
    for (const Endpoint& vip : target_.vips) targets.push_back({{"vip", vip.address.to_string()}, {"port", vip.port}});
    json order{{"pool", target_.pool},
               {"backend", target_.backend},
               {"protocol", target_.type == ProbeType::tcp ? "tcp" : "udp"},
               {"timeout_ms", target_.timeout_ms},
               {"targets", std::move(targets)}};
    if (target_.type == ProbeType::udp) order["payload"] = to_hex(target_.send);
    if (target_.type == ProbeType::dns) {
      order["payload"] = to_hex(dns_probe_query(dns_id_, target_.dns_name, target_.dns_type));
    }
    return order.dump();
  }

  void ask(size_t forwarder) {
    if (forwarder == target_.forwarders.size()) {
      return finish({false, fmt::format("no forwarder of the site can ask: {}", trouble_), false});
    }
    const std::string& node = target_.forwarders[forwarder];
    target_.door->order(node, order_, target_.timeout_ms + kProbeOrderWayMs,
                        [self = self_, forwarder](const Result<HttpResponse>& answer) {
                          if (*self != nullptr) (*self)->take(forwarder, answer);
                        });
  }

  // If a forwarder cannot send the probe, this says nothing about the backend. The next forwarder may be able to.
  void take(size_t forwarder, const Result<HttpResponse>& answer) {
    const std::optional<ProbeResult> result = answer && answer->status == 200 ? judge(answer->body) : std::nullopt;
    if (result && result->looked) return finish(*result);
    trouble_ = fmt::format("{}: {}", target_.forwarders[forwarder],
                           result    ? result->reason
                           : !answer ? answer.error().message
                                     : fmt::format("answered {}", answer->status));
    ask(forwarder + 1);
  }

  // The result in the forwarder's answer. Nothing if the body is not an answer to the order.
  std::optional<ProbeResult> judge(const std::string& body) const {
    const Result<json> read = parse_json(body);
    const auto results = read && read->is_object() ? read->find("results") : json::const_iterator();
    if (!read || !read->is_object() || results == read->end() || !results->is_array() ||
        results->size() != target_.vips.size()) {
      return std::nullopt;
    }
    for (size_t i = 0; i < target_.vips.size(); ++i) {
      ProbeResult each = judge_one((*results)[i]);
      if (each.success) continue;
      each.reason = fmt::format("{}: {}", target_.vips[i].to_string(), each.reason);
      return each;
    }
    return ProbeResult{true, ""};
  }

  ProbeResult judge_one(const json& result) const {
    const std::string end = string_member(result, "end");
    if (end == "answered") return judge_reply(from_hex(string_member(result, "reply")));
    if (end == "refused") return {false, "connect refused", true, ProbeCause::refused};
    if (end == "timeout") return {false, timeout_sentence(target_.timeout_ms), true, ProbeCause::timeout};
    const std::string why = string_member(result, "why", "the forwarder could not ask");
    return {false, why, end == "no_neighbour", ProbeCause::connection};
  }

  ProbeResult judge_reply(const std::string& reply) const {
    if (target_.type == ProbeType::dns) {
      const std::string fault =
          dns_probe_fault(reply, dns_id_, target_.dns_rcode).value_or("answers what is no answer to the query");
      return {fault.empty(), fault, true, ProbeCause::answer};
    }
    if (reply.find(target_.expect) != std::string::npos) return {true, ""};
    return {false, fmt::format("the answer lacks '{}'", text_of_bytes(target_.expect)), true, ProbeCause::answer};
  }

  // Never called inside the constructor or a callback of the owner.
  void finish(ProbeResult result) {
    end_turn();
    loop_.defer([self = self_, result = std::move(result)] {
      if (*self != nullptr) (*self)->done_(result);
    });
  }

  EventLoop& loop_;
  const ProbeTarget target_;
  const ProbeDone done_;
  std::string order_, trouble_;
  uint16_t dns_id_ = 0;
  bool has_turn_ = false;
  std::shared_ptr<VipAttempt*> self_ = std::make_shared<VipAttempt*>(this);  // null once this object is destroyed
};

bool has_family(const Backend& backend, const IpAddress& like) {
  return std::any_of(backend.addresses.begin(), backend.addresses.end(),
                     [&](const IpAddress& address) { return address.family == like.family; });
}

}  // namespace

void ask_for_vips(ProbeTarget& target, const Model& model, uint32_t pool, const Backend& backend,
                  std::shared_ptr<const ForwarderDoor> door) {
  TIDEGATE_ASSERT(pool < model.pools.size(), "the pool is one of the model");
  const Protocol protocol = target.type == ProbeType::tcp ? Protocol::tcp : Protocol::udp;
  const Probe& probe = model.probes[model.pools[pool].probe];
  target.via_vip = true;
  target.pool = model.pools[pool].name;
  target.backend = backend.name;
  target.door = std::move(door);
  uint32_t site = kNone;
  for (const Service& service : model.services) {
    if (service.pool != pool || (probe.port == 0 && service.protocol != protocol)) continue;
    const Vip& vip = model.vips[service.vip];
    site = vip.site;
    for (const IpAddress& address : vip.addresses) {
      const Endpoint wanted{address, probe.port != 0 ? probe.port : service.port};
      const bool known = std::find(target.vips.begin(), target.vips.end(), wanted) != target.vips.end();
      if (!known && has_family(backend, address)) target.vips.push_back(wanted);
    }
  }
  for (const Node& node : model.nodes) {
    if (node.l4.enabled && node.site == site) target.forwarders.push_back(node.name);
  }
}

std::unique_ptr<ProbeAttempt> start_vip_probe(EventLoop& loop, const ProbeTarget& target, ProbeDone done) {
  return std::make_unique<VipAttempt>(loop, target, std::move(done));
}

}  // namespace tidegate
