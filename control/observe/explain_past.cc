// SPDX-License-Identifier: Apache-2.0
#include "control/observe/explain_past.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "conf/model.h"
#include "conf/model/node.h"
#include "conf/model/site.h"
#include "control/api/json_bounds.h"
#include "control/observe/explanation_text.h"
#include "core/percent.h"

namespace tidegate {

namespace {

using nlohmann::json;

constexpr size_t kMostPasses = 16;  // passes in the answer; for each one, forwarders may be asked

class PastSearch : public std::enable_shared_from_this<PastSearch> {
 public:
  PastSearch(Fleet& fleet, std::shared_ptr<const Model> model, uint64_t version, std::string id,
             std::function<void(json)> done)
      : fleet_(fleet), model_(std::move(model)), version_(version), id_(std::move(id)), done_(std::move(done)) {}

  // Asks all proxies at the same time, so that one that does not answer does not delay the others.
  void ask_proxies() {
    std::vector<std::string> nodes;
    for (const Node& node : model_->nodes) {
      if (node.l7.enabled) nodes.push_back(node.name);
    }
    pending_ = nodes.size();
    if (nodes.empty()) return finish();
    const std::string target = "/explain?request=" + percent_encode(id_);
    for (const std::string& node : nodes) {
      fleet_.ask_plane(node, "l7", target, [self = shared_from_this(), node](const Result<json>& answer) {
        self->take(node, answer);
        if (--self->pending_ == 0) self->follow_passes();
      });
    }
  }

 private:
  void take(const std::string& node, const Result<json>& answer) {
    if (!answer || !answer->is_object()) {
      unreachable_.push_back(
          {{"node", node}, {"why", answer ? "its answer is not an object" : answer.error().message}});
      return;
    }
    const auto records = answer->find("records");
    if (records == answer->end() || !records->is_array() || records->empty()) {
      not_found_.push_back({{"node", node}, {"why", string_member(*answer, "forgotten")}});
      return;
    }
    for (const json& record : *records) {
      if (!record.is_object()) continue;
      json pass = {{"plane", "l7"}, {"node", node}, {"past", true}};
      pass.update(record);
      passes_.push_back(std::move(pass));
    }
  }

  void follow_passes() {
    std::stable_sort(passes_.begin(), passes_.end(), [](const json& a, const json& b) {
      return string_member(a, "ended") > string_member(b, "ended");
    });
    if (passes_.size() > kMostPasses) passes_.resize(kMostPasses);
    follow_pass(0);
  }

  // First the forwarders of the VIP, then the proxy's own record.
  void follow_pass(size_t index) {
    if (index == passes_.size()) return finish();
    const json& pass = passes_[index];
    const auto go_on = [self = shared_from_this(), index] {
      self->steps_.push_back(self->passes_[index]);
      self->follow_pass(index + 1);
    };
    const std::optional<IpAddress> destination = IpAddress::parse(string_member(pass, "destination"));
    if (!destination) {
      skip_l4("where a client had connected to is not recorded: the request had none");
      return go_on();
    }
    const Vip* const vip = vip_of(*destination);
    if (vip == nullptr) {
      skip_l4(fmt::format("{} is no VIP of version {}", destination->to_string(), version_));
      return go_on();
    }
    std::vector<std::string> forwarders;
    for (const Node& node : model_->nodes) {
      if (node.l4.enabled && node.site == vip->site) forwarders.push_back(node.name);
    }
    passes_[index]["vip"] = vip->name;
    if (forwarders.empty()) {
      skip_l4(fmt::format("the site of VIP {} has no forwarder", vip->name));
      return go_on();
    }
    const std::string target =
        fmt::format("/explain?client={}&client_port={}&vip={}&port={}&protocol=tcp",
                    percent_encode(string_member(pass, "peer")), number_member(pass, "peer_port"),
                    percent_encode(destination->to_string()), number_member(pass, "destination_port"));
    const auto waiting = std::make_shared<size_t>(forwarders.size());
    for (const std::string& node : forwarders) {
      fleet_.ask_plane(node, "l4", target,
                       [self = shared_from_this(), node, name = vip->name, waiting, go_on](const Result<json>& answer) {
                         self->take_flow(node, name, answer);
                         if (--*waiting == 0) go_on();
                       });
    }
  }

  void skip_l4(const std::string& why) { steps_.push_back({{"plane", "l4"}, {"past", true}, {"skipped", why}}); }

  // A forwarder knows only the flows that it has now. Ended flows are forgotten.
  void take_flow(const std::string& node, const std::string& vip, const Result<json>& answer) {
    json step = {{"plane", "l4"}, {"node", node}, {"past", true}, {"vip", vip}};
    if (!answer || !answer->is_object()) {
      step["error"] = answer ? "its answer is not an object" : answer.error().message;
    } else {
      step.update(*answer);
      step["pinned"] = string_member(*answer, "decision") == "flow";
    }
    steps_.push_back(std::move(step));
  }

  const Vip* vip_of(const IpAddress& address) const {
    for (const Vip& vip : model_->vips) {
      if (std::find(vip.addresses.begin(), vip.addresses.end(), address) != vip.addresses.end()) return &vip;
    }
    return nullptr;
  }

  void finish() {
    std::string sentence = describe_steps(steps_);
    const auto add = [&sentence](const json& nodes, const char* verb) {
      for (const json& each : nodes) {
        sentence += fmt::format("{}l7 on {} {}: {}", sentence.empty() ? "" : "; ", string_member(each, "node"), verb,
                                string_member(each, "why"));
      }
    };
    if (passes_.empty()) add(not_found_, "does not know it");
    add(unreachable_, "could not be asked");
    if (sentence.empty()) sentence = "no node of this edge has a proxy";
    done_({{"request", id_},
           {"version", version_},
           {"found", !passes_.empty()},
           {"steps", std::move(steps_)},
           {"not_found", std::move(not_found_)},
           {"unreachable", std::move(unreachable_)},
           {"sentence", std::move(sentence)}});
  }

  Fleet& fleet_;
  std::shared_ptr<const Model> model_;  // one search uses one version
  uint64_t version_;
  std::string id_;
  std::function<void(json)> done_;
  size_t pending_ = 0;
  std::vector<json> passes_;
  json steps_ = json::array(), not_found_ = json::array(), unreachable_ = json::array();
};

}  // namespace

void explain_past(Fleet& fleet, const HostState& host_state, std::string id, std::function<void(json)> done) {
  std::make_shared<PastSearch>(fleet, host_state.model(), host_state.head().version, std::move(id), std::move(done))
      ->ask_proxies();
}

}  // namespace tidegate
