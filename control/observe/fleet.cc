// SPDX-License-Identifier: Apache-2.0
#include "control/observe/fleet.h"

#include <fmt/format.h>

#include "control/api/json_bounds.h"
#include "control/api/shapes.h"
#include "core/assert.h"

namespace tidegate {

namespace {

using nlohmann::json;

constexpr size_t kMaxAnswerBytes = 16 << 20;

// Returns the JSON of a 200. For any other answer returns an Error with its text in one sentence.
Result<json> read_json(const Result<HttpResponse>& response) {
  if (!response) return fail(response.error().message);
  Result<json> body = parse_json(response->body);
  if (response->status != 200) {
    const std::string detail = body ? string_member(*body, "detail") : std::string();
    return fail(fmt::format("answered {}{}{}", response->status, detail.empty() ? "" : ": ", detail));
  }
  if (!body) return fail("answered what is not JSON: " + body.error().message);
  return body;
}

// Collects the answers to several questions, each at its index.
class Gathering {
 public:
  Gathering(size_t questions, std::function<void(json)> done)
      : answers_(json::array()), pending_(questions), done_(std::move(done)) {
    for (size_t i = 0; i < questions; ++i) answers_.push_back(nullptr);
    if (questions == 0) done_(answers_);
  }
  void answer(size_t place, json value) {
    TIDEGATE_ASSERT(place < answers_.size() && pending_ > 0, "each question has one answer");
    answers_[place] = std::move(value);
    if (--pending_ == 0) done_(std::move(answers_));
  }

 private:
  json answers_;
  size_t pending_;
  std::function<void(json)> done_;
};

// Checks the form of another host's answer.
bool is_node_status(const json& status) {
  if (!status.is_object()) return false;
  for (const char* list : {"planes", "unreachable"}) {
    const auto member = status.find(list);
    if (member == status.end() || !member->is_array()) return false;
  }
  return true;
}

// True if every plane answered and has the version and live state of `head`.
bool has_converged(const json& nodes, const StateHead& head) {
  for (const json& node : nodes) {
    if (!bool_member(node, "reachable") || !node["unreachable"].empty()) return false;
    for (const json& plane : node["planes"]) {
      if (number_member(plane, "version") != head.version || number_member(plane, "words") != head.live_state)
        return false;
    }
  }
  return true;
}

}  // namespace

std::vector<std::string> Fleet::planes_of(const Node& node) {
  std::vector<std::string> planes;
  if (node.l4.enabled) planes.emplace_back("l4");
  if (node.l7.enabled) planes.emplace_back("l7");
  if (node.dns.enabled) planes.emplace_back("dns");
  return planes;
}

std::string Fleet::own_node(const Model* model) const {
  const bool only_one = model != nullptr && model->nodes.size() == 1 && !options_.node_told;
  return only_one ? model->nodes.front().name : options_.node;
}

const Node* Fleet::find(const std::string& node) const {
  const std::shared_ptr<const Model> model = host_state_.model();
  if (!model) return nullptr;
  const uint32_t index = model->node_index(node);
  return index == kNone ? nullptr : &model->nodes[index];
}

void Fleet::call(const HttpTarget& target, HttpClientRequest request, HttpAnswer answer) {
  const uint64_t id = next_call_++;
  request.max_body_bytes = kMaxAnswerBytes;
  EventLoop& loop = loop_;
  std::weak_ptr<std::map<uint64_t, std::unique_ptr<HttpCall>>> calls = calls_;
  std::unique_ptr<HttpCall> under_way = http_call(
      loop_, target, std::move(request), [&loop, calls, id, answer = std::move(answer)](Result<HttpResponse> response) {
        // A call may not be destroyed inside its own callback.
        loop.defer([calls, id] {
          if (const auto alive = calls.lock()) alive->erase(id);
        });
        answer(std::move(response));
      });
  calls_->emplace(id, std::move(under_way));
}

void Fleet::send_to_plane(const std::string& plane, HttpClientRequest request, HttpAnswer answer) {
  HttpTarget socket;
  socket.unix_path = options_.run_dir + "/" + plane + ".sock";
  request.host = plane;
  call(socket, std::move(request), std::move(answer));
}

void Fleet::send_to_node(const Node& node, HttpClientRequest request, HttpAnswer answer) {
  if (!node.management) return answer(fail("the node has no management address"));
  const Result<HttpTarget> control = options_.peers.target(*node.management);
  if (!control) return answer(control.error());
  HttpClientRequest for_peer = options_.peers.request(*node.management);
  request.host = std::move(for_peer.host);
  for (auto& field : for_peer.headers) request.headers.push_back(std::move(field));
  call(*control, std::move(request), std::move(answer));
}

std::unique_ptr<HttpCall> Fleet::stream_from_node(const Node& node, const std::string& target,
                                                  std::function<void(std::string_view)> on_data, HttpDone done) {
  if (!node.management) return nullptr;
  const Result<HttpTarget> control = options_.peers.target(*node.management);
  if (!control) return nullptr;
  HttpClientRequest request = options_.peers.request(*node.management);
  request.target = target;
  request.timeout_ms = 0;
  return http_stream(loop_, *control, std::move(request), std::move(on_data), std::move(done));
}

void Fleet::ask_own_plane(const std::string& plane, const std::string& target, HttpAnswer answer) {
  HttpClientRequest request;
  request.target = target;
  request.timeout_ms = options_.plane_timeout_ms;
  send_to_plane(plane, std::move(request), std::move(answer));
}

void Fleet::ask_node(const Node& node, const std::string& target, JsonAnswer answer) {
  HttpClientRequest request;
  request.target = target;
  request.timeout_ms = options_.node_timeout_ms;
  send_to_node(node, std::move(request),
               [answer](const Result<HttpResponse>& response) { answer(read_json(response)); });
}

void Fleet::ask_plane(const std::string& node, const std::string& plane, const std::string& target, JsonAnswer answer) {
  if (node == own_node()) {
    return ask_own_plane(plane, target,
                         [answer](const Result<HttpResponse>& response) { answer(read_json(response)); });
  }
  const Node* other = find(node);
  if (!other) return answer(fail("the configuration has no node " + node));
  ask_node(*other,
           "/v1/node/" + (target[0] == '/' ? target.substr(1, target.find('?') - 1) : target) + "/" + plane +
               (target.find('?') == std::string::npos ? "" : target.substr(target.find('?'))),
           std::move(answer));
}

void Fleet::own_status(JsonAnswer answer) {
  const Node* own = find(own_node());
  const std::vector<std::string> planes = own ? planes_of(*own) : std::vector<std::string>{};
  json self = {{"name", own_node()}, {"head", to_json(host_state_.head())}, {"digest", host_state_.manifest().digest}};
  if (describe_self_) self.update(describe_self_());
  const auto gathering = std::make_shared<Gathering>(planes.size(), [self, answer](const json& answers) mutable {
    self["planes"] = json::array();
    self["unreachable"] = json::array();
    for (const json& entry : answers) self[entry.contains("why") ? "unreachable" : "planes"].push_back(entry);
    answer(std::move(self));
  });
  for (size_t i = 0; i < planes.size(); ++i) {
    ask_own_plane(planes[i], "/status", [gathering, i, plane = planes[i]](const Result<HttpResponse>& response) {
      const Result<json> status = read_json(response);
      json entry = {{"plane", plane}};
      if (status && status->is_object()) {
        entry.update(*status);
      } else {
        entry["why"] = status ? "its status is not an object" : status.error().message;
      }
      gathering->answer(i, std::move(entry));
    });
  }
}

void Fleet::status_of(const std::string& node, JsonAnswer answer) {
  if (node == own_node()) return own_status(std::move(answer));
  const Node* other = find(node);
  if (!other) return answer(fail("the configuration has no node " + node));
  ask_node(*other, "/v1/node/status", std::move(answer));
}

void Fleet::status(std::function<void(json)> answer) {
  std::vector<std::string> names;
  if (const std::shared_ptr<const Model> model = host_state_.model()) {
    for (const Node& node : model->nodes) names.push_back(node.name);
  }
  if (names.empty()) names.push_back(own_node());
  const StateHead head = host_state_.head();
  json edge = {{"asked", own_node()}, {"head", to_json(head)}, {"digest", host_state_.manifest().digest}};
  const auto gathering = std::make_shared<Gathering>(names.size(), [edge, head, answer](json nodes) mutable {
    edge["converged"] = has_converged(nodes, head);
    edge["nodes"] = std::move(nodes);
    answer(std::move(edge));
  });
  for (size_t i = 0; i < names.size(); ++i) {
    status_of(names[i], [gathering, i, name = names[i]](Result<json> status) {
      const bool reachable = status.has_value() && is_node_status(*status);
      json entry = {{"name", name}, {"reachable", reachable}};
      if (reachable) {
        entry.update(*status);
        entry["name"] = name;
      } else {
        entry["why"] = status ? "its control's answer is not a status" : status.error().message;
      }
      gathering->answer(i, std::move(entry));
    });
  }
}

}  // namespace tidegate
