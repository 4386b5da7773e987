// SPDX-License-Identifier: Apache-2.0
#include "control/health/site_watch.h"

#include <map>
#include <utility>
#include <vector>

#include "conf/model.h"
#include "conf/model/node.h"
#include "conf/model/pool.h"
#include "conf/model/site.h"
#include "control/api/json_bounds.h"
#include "core/clock.h"
#include "core/log.h"

namespace tidegate {

SiteWatch::SiteWatch(EventLoop& loop, HostState& host_state, Fleet& fleet, const HashKey& spread_key,
                     std::function<bool()> leader_is_heard)
    : loop_(loop),
      host_state_(host_state),
      fleet_(fleet),
      spread_key_(spread_key),
      leader_is_heard_(std::move(leader_is_heard)),
      heard_ns_(monotonic_ns()),
      timer_(loop, [this] { look(); }) {
  timer_.arm_after_ms(kLookMs);
}

// The name of the site of this host's node; empty: it has none.
std::string SiteWatch::own_site() const {
  const std::shared_ptr<const Model> model = host_state_.model();
  if (!model) return {};
  const std::string node = fleet_.own_node(model.get());
  for (const Node& each : model->nodes) {
    if (each.name == node && each.site != kNone) return model->sites[each.site].name;
  }
  return {};
}

void SiteWatch::stop() {
  prober_.reset();
  writer_.reset();
  opinions_ = {};
  asked_.clear();
  site_.clear();
}

void SiteWatch::look() {
  timer_.arm_after_ms(kLookMs);
  const uint64_t now_ns = monotonic_ns();
  if (leader_is_heard_()) {
    heard_ns_ = now_ns;
    if (prober_) log_info("a leader is heard again: its verdicts count");
    return stop();
  }
  if (now_ns - heard_ns_ < kSilenceMs * kNsPerMs) return;
  if (!prober_) {
    const std::string site = own_site();
    if (site.empty()) return;
    begin(site);
  }
  prober_->update();
  ask_others(site_);
  conclude_all();
}

void SiteWatch::begin(const std::string& site) {
  log_warn("no leader is heard: this host probes the backends of site {} itself", site);
  site_ = site;
  patient_until_ns_ = monotonic_ns() + kPatienceMs * kNsPerMs;
  nodes_.clear();
  const std::shared_ptr<const Model> model = host_state_.model_with_servers();
  for (const Pool& pool : model->pools) {
    for (const Backend& backend : pool.backends) {
      if (backend.node != kNone) nodes_[backend_key(pool.name, backend.name)] = model->nodes[backend.node].name;
    }
  }
  // Once a leader is heard, its live state may have come already, and must not be replaced.
  writer_ = std::make_unique<VerdictWriter>(loop_, host_state_, VerdictWriter::Scope::site,
                                            [this] { return !leader_is_heard_(); });
  prober_ = std::make_unique<Prober>(loop_, host_state_, *writer_, spread_key_, site);
  prober_->set_commands(commands_);
  prober_->set_door(door_);
  prober_->tell_instead([this](const std::string& key, bool up, const std::string& reason) {
    opinions_.note_own(key, {up, reason});
    conclude(key);
  });
}

// Asks the nodes that come next after this one in the order of names. So every control is asked by some other one.
void SiteWatch::ask_others(const std::string& site) {
  const std::shared_ptr<const Model> model = host_state_.model();
  const std::string own = fleet_.own_node(model.get());
  std::map<std::string, const Node*> before, after;
  for (const Node& node : model->nodes) {
    const bool of_site = node.site != kNone && model->sites[node.site].name == site;
    if (of_site && node.management && node.name != own) (node.name < own ? before : after).emplace(node.name, &node);
  }
  std::vector<const Node*> wanted;
  for (const auto* each : {&after, &before}) {
    for (const auto& [name, node] : *each) {
      if (wanted.size() < kMostAsked) wanted.push_back(node);
    }
  }
  if (wanted.empty()) patient_until_ns_ = 0;
  for (const Node* node : wanted) {
    if (!asked_.insert(node->name).second) continue;  // it has not answered the last question
    HttpClientRequest request;
    request.method = "GET";
    request.target = "/v1/node/probes";
    fleet_.send_to_node(*node, std::move(request),
                        [self = self_, name = node->name](const Result<HttpResponse>& answer) {
                          if (*self != nullptr) (*self)->on_answer(name, answer);
                        });
  }
}

void SiteWatch::on_answer(const std::string& node, const Result<HttpResponse>& answer) {
  if (asked_.erase(node) == 0) return;  // it was asked before there was contact to a leader again
  SiteOpinions::Opinions theirs;
  const Result<nlohmann::json> body = answer && answer->status == 200 ? parse_json(answer->body) : fail("no answer");
  if (body && body->is_object() && body->contains("backends") && (*body)["backends"].is_object()) {
    for (const auto& [key, opinion] : (*body)["backends"].items()) {
      if (!opinion.is_object() || !opinion.contains("up") || !opinion["up"].is_boolean()) continue;
      theirs[key] = {opinion["up"].get<bool>(), string_member(opinion, "reason")};
    }
  }
  opinions_.note_other(node, std::move(theirs));
  conclude_all();
}

void SiteWatch::conclude_all() {
  for (const auto& [key, opinion] : opinions_.own()) conclude(key);
}

void SiteWatch::conclude(const std::string& key) {
  if (!writer_) return;
  const std::optional<SiteOpinions::Opinion> concluded =
      opinions_.conclude(key, nodes_[key], monotonic_ns() < patient_until_ns_);
  if (!concluded) return;
  const std::optional<HealthVerdict> latest = writer_->latest(key);
  if (latest && latest->up == concluded->up) return;
  std::string reason = "seen from site " + site_ + " alone, no leader is heard";
  if (!concluded->reason.empty()) reason += ": " + concluded->reason;
  log_info("{} is {} on this host: {}", key, concluded->up ? "up" : "down", reason);
  writer_->note(key, HealthVerdict{concluded->up, std::move(reason), realtime_ns()});
}

nlohmann::json SiteWatch::seen() const {
  nlohmann::json backends = nlohmann::json::object();
  for (const auto& [key, opinion] : opinions_.own()) {
    backends[key] = {{"up", opinion.up}};
    if (!opinion.reason.empty()) backends[key]["reason"] = opinion.reason;
  }
  return {{"backends", std::move(backends)}};
}

}  // namespace tidegate
