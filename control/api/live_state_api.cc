// SPDX-License-Identifier: Apache-2.0
#include "control/api/live_state_api.h"

#include <fmt/format.h>

#include <algorithm>

#include "conf/model.h"
#include "conf/model/node.h"
#include "conf/model/policy.h"
#include "conf/model/pool.h"
#include "conf/model/site.h"
#include "conf/model/steer.h"
#include "conf/names.h"
#include "conf/plane_health.h"
#include "conf/policy/limit.h"
#include "conf/scalar.h"
#include "control/api/parameters.h"
#include "control/api/shapes.h"
#include "core/clock.h"

namespace tidegate {

namespace {

using nlohmann::json;

constexpr std::string_view kConfiguration = "the configuration";

template <class List>
const typename List::value_type* find_named(const List& list, std::string_view wanted) {
  const auto found = std::find_if(list.begin(), list.end(), [&](const auto& each) { return each.name == wanted; });
  return found == list.end() ? nullptr : &*found;
}

// Returns a sentence if the list does not have the name, else an empty text.
template <class List>
std::string lack(std::string_view owner, std::string_view what, const List& list, const std::string& wanted) {
  if (find_named(list, wanted)) return {};
  std::vector<std::string_view> names;
  names.reserve(list.size());
  for (const auto& each : list) names.push_back(each.name);
  const std::string hint = did_you_mean(wanted, names);
  return fmt::format("{} has no {} {}{}{}", owner, what, in_quotes(wanted), hint.empty() ? "" : "; ", hint);
}

class LiveStateApi {
 public:
  LiveStateApi(HostState& host_state, LongCalls& long_calls) : host_state_(host_state), long_calls_(long_calls) {}

  void list(const ApiCall& call) {
    const LiveState& live_state = *host_state_.live_state();
    json admin = json::object();
    for (const auto& [key, record] : live_state.overrides) admin[key] = to_json(record);
    call.respond(
        HttpResponse::json(200, dump({{"sequence", live_state.sequence}, {"words", std::move(admin)}}) + "\n"));
  }

  // Every backend with its state, which is the same in all planes, and the live state that causes it.
  void health(const ApiCall& call) {
    const std::shared_ptr<const Snapshot> snapshot = host_state_.snapshot();
    const std::shared_ptr<const LiveState> live_state = host_state_.live_state();
    const size_t elements = live_state->health.size() + live_state->loads.size() + live_state->names.size() +
                            (snapshot ? snapshot->pools.size() + snapshot->model->vips.size() : 0);
    long_calls_.answer_list(call, elements, [snapshot, live_state, version = host_state_.head().version] {
      return describe_health(snapshot.get(), *live_state, version);
    });
  }

  void set(const ApiCall& call) {
    const std::optional<std::string> key = target_key(call, true);
    if (!key) return;
    const std::optional<json> body = object_body(call, {"state", "note"});
    if (!body) return;
    const std::optional<OverrideState> state = parse_override_state(string_member(*body, "state"));
    const bool is_plane = key->compare(0, 6, "plane/") == 0;
    if (!state || *state == OverrideState::quota || (*state == OverrideState::up && !is_plane)) {
      return call.respond(
          problem(400, "bad_body",
                  is_plane ? "\"state\" is \"drained\", \"down\" or \"up\"" : "\"state\" is \"drained\" or \"down\""));
    }
    std::optional<std::string> note = note_member(call, *body, "note");
    if (!note) return;
    store(call, *key, Override{*state, call.who.name, *std::move(note), realtime_ns()});
  }

  void clear(const ApiCall& call) {
    const std::optional<std::string> key = target_key(call, false);
    if (!key) return;
    clear_key(call, *key, "is not drained");
  }

  // Another quota for a policy's limit, without a version. It holds until it is cleared, whatever versions come.
  void set_quota(const ApiCall& call) {
    const std::string& policy_name = call.path.at("name");
    const std::shared_ptr<const Model> model = host_state_.model_with_servers();
    static const Model nothing;
    const std::string fault = lack(kConfiguration, "policy", model ? model->policies : nothing.policies, policy_name);
    if (!fault.empty()) return call.respond(problem(404, "no_such_object", fault));
    const auto* const part = find_named(model->policies, policy_name)->part<LimitPolicy>("limit");
    if (part == nullptr) {
      return call.respond(
          problem(404, "no_such_object", fmt::format("policy {} has no limit", in_quotes(policy_name))));
    }
    const std::optional<json> body = object_body(call, {"requests", "burst", "note"});
    if (!body) return;
    LimitPolicy limit = *part;
    if (std::string wrong = read_quota(*body, limit); !wrong.empty()) {
      return call.respond(problem(400, "bad_body", std::move(wrong)));
    }
    std::optional<std::string> note = note_member(call, *body, "note");
    if (!note) return;
    store(call, limit_key(policy_name),
          Override{OverrideState::quota, call.who.name, *std::move(note), realtime_ns(), limit.requests, limit.burst});
  }

  void clear_quota(const ApiCall& call) {
    clear_key(call, limit_key(call.path.at("name")), "has the quota of the configuration");
  }

 private:
  void clear_key(const ApiCall& call, const std::string& key, const char* lacks) {
    if (host_state_.live_state()->overrides.count(key) == 0) {
      return call.respond(problem(404, "no_such_word", fmt::format("{} {}", key, lacks)));
    }
    store(call, key, std::nullopt);
  }

  // A sentence if the body has no quota that the limit can have.
  static std::string read_quota(const json& body, LimitPolicy& limit) {
    constexpr uint64_t kMost = 1'000'000'000;  // as the keys of the policy
    const auto is_number = [&](const char* member, uint64_t least) {
      const auto found = body.find(member);
      return found != body.end() && found->is_number_unsigned() && found->get<uint64_t>() >= least &&
             found->get<uint64_t>() <= kMost;
    };
    if (!is_number("requests", 1)) return fmt::format("\"requests\" is a number from 1 to {}", kMost);
    if (body.contains("burst") && !is_number("burst", 0))
      return fmt::format("\"burst\" is a number from 0 to {}", kMost);
    const bool has_burst = limit.algorithm == LimitAlgorithm::token_bucket;
    if (body.contains("burst") && !has_burst)
      return "\"burst\" belongs to a token bucket; this limit is a sliding window";
    limit.requests = number_member(body, "requests");
    limit.burst = number_member(body, "burst");
    const QuotaFault fault = quota_fault(limit);
    return fault.key == nullptr ? std::string()
                                : fmt::format("{}: {}; expected {}", fault.key, fault.what, fault.expected);
  }

  static HttpResponse describe_health(const Snapshot* snapshot, const LiveState& live_state, uint64_t version) {
    json pools = json::array(), vips = json::array(), planes = describe_planes(snapshot, live_state),
         words = json::object(), loads = json::object(), names = json::object();
    for (const auto& [key, record] : live_state.names) names[key] = to_json(record);
    for (const auto& [key, record] : live_state.loads) loads[key] = to_json(record);
    for (const auto& [key, record] : live_state.health) words[key] = to_json(record);
    if (snapshot) {
      for (size_t i = 0; i < snapshot->model->pools.size(); ++i) {
        pools.push_back(describe(snapshot->model->pools[i], snapshot->pools[i], live_state));
      }
      const Forwarders forwarders(*snapshot->model);
      for (size_t i = 0; i < snapshot->model->vips.size(); ++i) {
        vips.push_back({{"vip", snapshot->model->vips[i].name}, {"up", bool{snapshot->vip_up[i]}}});
        const std::string why = forwarder_trouble(*snapshot, forwarders, static_cast<uint32_t>(i));
        if (!why.empty()) vips.back()["why"] = why;
      }
    }
    return HttpResponse::json(200, dump({{"version", version},
                                         {"sequence", live_state.sequence},
                                         {"words", std::move(words)},
                                         {"loads", std::move(loads)},
                                         {"names", std::move(names)},
                                         {"pools", std::move(pools)},
                                         {"planes", std::move(planes)},
                                         {"vips", std::move(vips)}}) +
                                       "\n");
  }

  static json describe_planes(const Snapshot* snapshot, const LiveState& live_state) {
    json planes = json::array();
    if (snapshot == nullptr) return planes;
    for (uint32_t n = 0; n < snapshot->model->nodes.size(); ++n) {
      const Node& node = snapshot->model->nodes[n];
      for (const PlaneKind kind : kPlaneKinds) {
        if (!runs(node, kind)) continue;
        const BackendStatus& status = snapshot->plane(n, kind);
        json entry = {{"node", node.name}, {"plane", name(kind)}, {"state", name(status.state)}, {"why", status.why}};
        const std::string key = plane_key(node.name, name(kind));
        if (const auto record = live_state.overrides.find(key); record != live_state.overrides.end())
          entry["admin"] = to_json(record->second);
        if (const auto record = live_state.health.find(key); record != live_state.health.end())
          entry["health"] = to_json(record->second);
        planes.push_back(std::move(entry));
      }
    }
    return planes;
  }

  static json describe(const Pool& pool, const PoolStatus& status, const LiveState& live_state) {
    json backends = json::array();
    for (size_t i = 0; i < pool.backends.size(); ++i) {
      const Backend& backend = pool.backends[i];
      json entry = {{"backend", backend.name},
                    {"address", backend.addresses.empty() ? "" : backend.addresses[0].to_string()},
                    {"weight", backend.weight},
                    {"state", name(status.backends[i].state)},
                    {"why", status.backends[i].why}};
      const std::string key = backend_key(pool.name, backend.name);
      if (const auto record = live_state.overrides.find(key); record != live_state.overrides.end())
        entry["admin"] = to_json(record->second);
      if (const auto record = live_state.health.find(key); record != live_state.health.end())
        entry["health"] = to_json(record->second);
      if (!backend.found_by.empty()) entry["found_by"] = backend.found_by;
      backends.push_back(std::move(entry));
    }
    json result = {
        {"pool", pool.name}, {"up", status.up}, {"fail_open", status.fail_open}, {"backends", std::move(backends)}};
    const auto record = live_state.overrides.find(pool_key(pool.name));
    if (record != live_state.overrides.end()) result["admin"] = to_json(record->second);
    return result;
  }

  // Returns the record's key, or sends 404. The backend of a record may be gone, so clearing does not check that the
  // backend exists.
  std::optional<std::string> target_key(const ApiCall& call, bool must_exist) const {
    const std::string& target = call.path.at("name");
    constexpr std::string_view kPrefix = "/v1/admin/";
    const std::string_view rest = std::string_view(call.request().path).substr(kPrefix.size());
    const std::string_view kind = rest.substr(0, rest.find('/'));
    if (must_exist) {
      const std::shared_ptr<const Model> in_force = host_state_.model_with_servers();
      static const Model nothing;
      const Model& model = in_force ? *in_force : nothing;
      const std::string fault = kind == "backend"  ? missing_backend(model, call.path.at("pool"), target)
                                : kind == "site"   ? lack(kConfiguration, "site", model.sites, target)
                                : kind == "vip"    ? lack(kConfiguration, "vip", model.vips, target)
                                : kind == "plane"  ? missing_plane(model, call.path.at("node"), target)
                                : kind == "target" ? missing_target(model, call.path.at("steer"), target)
                                                   : lack(kConfiguration, "pool", model.pools, target);
      if (!fault.empty()) {
        call.respond(problem(404, "no_such_object", fault));
        return std::nullopt;
      }
    }
    if (kind == "backend") return backend_key(call.path.at("pool"), target);
    if (kind == "plane") return plane_key(call.path.at("node"), target);
    if (kind == "target") return tidegate::target_key(lower_without_dot(call.path.at("steer")), target);
    return kind == "site" ? site_key(target) : kind == "vip" ? vip_key(target) : pool_key(target);
  }

  static std::string lower_without_dot(const std::string& name) {
    const std::optional<std::string> domain = canonical_domain(name);
    return domain ? *domain : name;
  }

  static std::string missing_target(const Model& model, const std::string& steer_name, const std::string& target) {
    const std::string wanted = lower_without_dot(steer_name) + ".";
    const Steer* const steer = find_named(model.steers, wanted);
    if (steer == nullptr) return lack(kConfiguration, "steer", model.steers, wanted);
    std::vector<std::string> labels;
    for (const SteerTarget& each : steer->targets) labels.push_back(target_label(model, each));
    if (std::find(labels.begin(), labels.end(), target) != labels.end()) return {};
    return fmt::format("steer {} has no target {}; its targets are {}", in_quotes(steer_name), in_quotes(target),
                       fmt::join(labels, ", "));
  }

  static std::string missing_plane(const Model& model, const std::string& node_name, const std::string& plane) {
    const Node* const node = find_named(model.nodes, node_name);
    if (node == nullptr) return lack(kConfiguration, "node", model.nodes, node_name);
    std::vector<const char*> planes;
    for (const PlaneKind kind : kPlaneKinds) {
      if (runs(*node, kind)) planes.push_back(name(kind));
    }
    if (std::find(planes.begin(), planes.end(), plane) != planes.end()) return {};
    return fmt::format("node {} has no plane {}; its planes are {}", in_quotes(node_name), in_quotes(plane),
                       fmt::join(planes, ", "));
  }

  static std::string missing_backend(const Model& model, const std::string& pool_name, const std::string& backend) {
    const Pool* pool = find_named(model.pools, pool_name);
    const auto found_by_it = [&](const Backend& each) {
      return each.found_by == backend;
    };  // all addresses of its name
    if (pool && !backend.empty() && std::any_of(pool->backends.begin(), pool->backends.end(), found_by_it)) return {};
    return pool ? lack("pool " + in_quotes(pool_name), "backend", pool->backends, backend)
                : lack(kConfiguration, "pool", model.pools, pool_name);
  }

  void store(const ApiCall& call, const std::string& key, const std::optional<Override>& record) {
    if (call.flag("dry_run")) {
      return call.respond(HttpResponse::json(200, dump({{"outcome", "dry_run"}, {"key", key}}) + "\n"));
    }
    host_state_.decide<Result<uint64_t>>(
        [this, key, record, who = call.who.name] { return host_state_.set_override(key, record, who); },
        [call, key, record](const Result<uint64_t>& sequence) {
          if (!sequence) return call.respond(store_failure(sequence.error()));
          json answer = {{"outcome", "committed"}, {"key", key}, {"words", *sequence}};
          answer["word"] = record ? to_json(*record) : json();
          call.respond(HttpResponse::json(200, dump(answer) + "\n"));
        });
  }

  HostState& host_state_;
  LongCalls& long_calls_;
};

}  // namespace

void add_live_state_routes(RouteTable& table, HostState& host_state, LongCalls& long_calls) {
  const auto api = std::make_shared<LiveStateApi>(host_state, long_calls);
  const auto handler = [api](void (LiveStateApi::*member)(const ApiCall&)) {
    return [api, member](const ApiCall& call) { (api.get()->*member)(call); };
  };
  table.add({"GET",
             "/v1/admin",
             Role::viewer,
             Effect::reads,
             "What operators took out of service, and quotas that they changed",
             {},
             {},
             handler(&LiveStateApi::list)});
  table.add({"GET",
             "/v1/health",
             Role::viewer,
             Effect::reads,
             "Every backend's state, why, and since when",
             {},
             {},
             handler(&LiveStateApi::health)});
  const QueryParameter dry_run = QueryParameter::boolean("dry_run", "true: check the call, change nothing");
  for (const char* pattern :
       {"/v1/admin/backend/{pool}/{name}", "/v1/admin/pool/{name}", "/v1/admin/site/{name}", "/v1/admin/vip/{name}",
        "/v1/admin/target/{steer}/{name}", "/v1/admin/plane/{node}/{name}"}) {
    table.add({"PUT",
               pattern,
               Role::operator_,
               Effect::writes,
               "Drain it, take it down, or keep a plane up: {\"state\", \"note\"}",
               {dry_run},
               {"application/json"},
               handler(&LiveStateApi::set)});
    table.add({"DELETE",
               pattern,
               Role::operator_,
               Effect::writes,
               "Put it back into service",
               {dry_run},
               {},
               handler(&LiveStateApi::clear)});
  }
  table.add({"PUT",
             "/v1/admin/limit/{name}",
             Role::operator_,
             Effect::writes,
             "Another quota for the limit of a policy, without a version: {\"requests\", \"burst\", \"note\"}",
             {dry_run},
             {"application/json"},
             handler(&LiveStateApi::set_quota)});
  table.add({"DELETE",
             "/v1/admin/limit/{name}",
             Role::operator_,
             Effect::writes,
             "The quota of the configuration holds again",
             {dry_run},
             {},
             handler(&LiveStateApi::clear_quota)});
}

}  // namespace tidegate
