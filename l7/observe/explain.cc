// SPDX-License-Identifier: Apache-2.0
#include "l7/observe/explain.h"

#include <fmt/format.h>

#include <algorithm>

#include <nlohmann/json.hpp>
#include <optional>

#include "core/clock.h"
#include "l7/exchange/conditions.h"
#include "l7/observe/url.h"
#include "l7/policy/split.h"

namespace tidegate::l7 {
namespace {

// The listener a URL reaches: of its port, else the first of its kind, else the first behind trusted proxies, whose
// word on the scheme holds.
uint32_t listener_for(const Plan& plan, const Url& url) {
  uint32_t of_kind = kNone, behind_proxies = kNone;
  for (const uint32_t index : plan.listeners) {
    const Listener& listener = plan.model().listeners[index];
    if (listener.tls.enabled != url.tls) {
      if (behind_proxies == kNone && !listener.trusted_proxies.empty()) behind_proxies = index;
      continue;
    }
    for (const Endpoint& bind : listener.bind) {
      if (bind.port == url.port) return index;
    }
    if (of_kind == kNone) of_kind = index;
  }
  return of_kind != kNone ? of_kind : behind_proxies;
}

// One backend of the pool, as it is now.
nlohmann::json explain_backend(const BackendPool& pool, const BackendStatus& status, uint32_t i, bool usable,
                               uint64_t now_ns) {
  const Pool& config = pool.config();
  const Backend& backend = config.backends[i];
  const BackendRuntime& runtime = *pool.runtimes()[i];
  nlohmann::json entry{{"backend", backend.name},
                       {"weight", backend.weight},
                       {"state", name(status.state)},
                       {"why", status.why},
                       {"in_flight", runtime.in_flight.load(std::memory_order_relaxed)},
                       {"takes_new_work", usable},
                       {"running_work", status.taken_down ? "ends" : "goes on"}};
  if (usable && runtime.ejected(now_ns)) entry["why"] = "ejected after consecutive failures";
  if (!backend.socket.empty()) entry["socket"] = backend.socket;
  if (backend.backup) entry["backup"] = true;
  if (!backend.labels.empty()) entry["labels"] = backend.labels;
  if (const double share = runtime.share_of_weight(now_ns, config.slow_start_ms * kNsPerMs); share < 1) {
    entry["slow_start"] = share;
  }
  if (config.policy == PoolPolicy::peak_ewma) entry["answer_time_us"] = runtime.latency.value_us(now_ns);
  if (config.breaker.enabled && config.breaker.scope == BreakerScope::backend) {
    entry["breaker"] = name(runtime.breaker.state(now_ns));
  }
  return entry;
}

// What the name of a backend leads to, and how its servers are.
void explain_name(const BackendPool& pool, const NameBook* names, uint32_t i, uint64_t now_ns, nlohmann::json& entry) {
  const std::string key = name_key(pool.config().backends[i]);
  if (key.empty()) return;
  const FoundName* const found = find_name(names, pool.config().backends[i]);
  entry["name"] = key;
  entry["lookup"] = found == nullptr ? "not looked up yet" : found->trouble.empty() ? "found" : found->trouble.c_str();
  entry["servers"] = nlohmann::json::array();
  for (const BackendPool::Server& server : pool.servers()) {
    if (server.index != i || server.runtime == pool.runtimes()[i]) continue;
    entry["servers"].push_back({{"backend", server.name},
                                {"in_flight", server.runtime->in_flight.load(std::memory_order_relaxed)},
                                {"ejected", server.runtime->ejected(now_ns)}});
  }
}

// With several levels: which part of the requests each of them gets now.
void explain_levels(const BackendPool& pool, uint64_t now_ns, nlohmann::json& answer) {
  constexpr const char* kNames[] = {"own", "other_sites", "backup"};
  const auto& members = pool.members();
  if (std::all_of(members.begin(), members.end(), [](const PoolMember& member) { return member.level == 0; })) return;
  const std::array<double, BackendPool::kLevels> shares = pool.shares(now_ns);
  for (size_t l = 0; l < shares.size(); ++l) answer["levels"][kNames[l]] = shares[l];
}

void explain_pool(const Plan& plan, uint32_t route, const RequestHead& request, std::string_view client,
                  uint32_t split_pool, nlohmann::json& answer) {
  const uint32_t pool_index = split_pool == kNone ? plan.model().routes[route].pool() : split_pool;
  const BackendPool& pool = split_pool == kNone ? plan.pool_of(route) : plan.pools[split_pool];
  const Pool& config = pool.config();
  const PoolStatus& status = plan.snapshot->pools[pool_index];
  answer["pool"] = config.name;
  answer["policy"] = policy_words(config.policy).name;
  answer["protocol"] = config.protocol == BackendProtocol::h1   ? "h1"
                       : config.protocol == BackendProtocol::h2 ? "h2"
                                                                : "auto";
  answer["upgrades"] = config.upgrades;
  answer["upgrades"].push_back("websocket");
  const uint64_t now_ns = monotonic_ns();
  const std::vector<PoolMember>& members = pool.members();
  for (uint32_t i = 0; i < config.backends.size(); ++i) {
    answer["eligible"].push_back(
        explain_backend(pool, status.backends[i], i, plan.snapshot->usable(pool_index, i), now_ns));
    explain_name(pool, plan.names.get(), i, now_ns, answer["eligible"].back());
  }
  if (!plan.model().routes[route].labels.empty()) answer["labels"] = plan.model().routes[route].labels;
  const bool hashed = config.policy == PoolPolicy::consistent_hash || config.policy == PoolPolicy::ring_hash;
  if (members.empty()) {
    answer["reason"] = "no backend of the pool may take new work: 503";
  } else if (hashed) {
    const PoolMember* preferred = pool.preferred(hash_for_pool(plan, config, request, client));
    answer["backend"] = preferred->name;
    answer["reason"] = fmt::format("the hash of its {} picks {} while that is within its bound of load", config.hash_on,
                                   preferred->name);
  } else if (members.size() == 1) {
    answer["backend"] = members[0].name;
    answer["reason"] = "the only backend that takes new work";
  } else {
    answer["reason"] = policy_words(config.policy).reason;
  }
  if (config.breaker.enabled && config.breaker.scope == BreakerScope::pool) {
    const Breaker::State state = pool.runtime().breaker.state(now_ns);
    answer["breaker"] = name(state);
    if (state == Breaker::State::open) answer["reason"] = "the breaker of the pool is open: 503";
  }
  if (config.sticky.by != StickyBy::none) {
    answer["sticky"] = fmt::format("{} {}: a client with its token stays on its backend",
                                   config.sticky.by == StickyBy::cookie ? "cookie" : "field", config.sticky.name);
  }
  explain_levels(pool, now_ns, answer);
  if (status.fail_open) answer["fail_open"] = true;
  if (pool.in_panic(now_ns)) answer["panic"] = true;
  answer["queue"] = {{"waiting", pool.runtime().waiting.load(std::memory_order_relaxed)},
                     {"size", config.queue_size},
                     {"timeout_ms", config.queue_timeout_ms}};
}

void explain_cache(const cache::Cache* cache, const Route& route, const Url& url, nlohmann::json& answer) {
  if (cache == nullptr || !route.cache.enabled) return;
  const RequestHead& request = url.request;
  const cache::Explanation found =
      cache->explain({request.method, url.tls ? "https" : "http", request.authority, request.path, request.query, {}},
                     route.cache, realtime_ns() / kNsPerMs);
  nlohmann::json& entry = answer["cache"] = {{"outcome", cache::name(found.outcome)}, {"key", found.key}};
  entry["age_s"] = found.age_s ? nlohmann::json(*found.age_s) : nlohmann::json();
}

// Every policy that holds there, in the order in which they are asked, and what each would say now.
void explain_policies(const policy::Chain* chain, const policy::Subject& subject, nlohmann::json& answer) {
  if (chain == nullptr) return;
  const uint64_t now_ns = monotonic_ns();
  for (const policy::Rule* rule : chain->rules) {
    nlohmann::json& entry = answer["policies"].emplace_back(
        nlohmann::json{{"policy", rule->policy}, {"kind", rule->kind}, {"stage", policy::name(rule->stage)}});
    rule->explain(subject, now_ns, entry);
  }
}

// The parameter `headers` of the question: fields that the request has, also Cookie; "Name: value", one in a line.
void add_fields(const HttpRequest& question, RequestHead& request, Arena& arena) {
  const std::string text = question.parameter("headers").value_or("");
  std::string_view rest = text;
  while (!rest.empty()) {
    const std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(line.size() + 1, rest.size()));
    const size_t colon = line.find(':');
    if (colon == std::string_view::npos) continue;
    std::string name(line.substr(0, colon));
    for (char& c : name) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c | 0x20) : c;
    std::string_view value = line.substr(colon + 1);
    value.remove_prefix(std::min(value.find_first_not_of(' '), value.size()));
    const std::string_view kept = arena.copy(name);
    request.fields.add({kept, arena.copy(value), classify_field(kept), false, kept});
  }
}

void explain_conditions(const Route& route, nlohmann::json& answer) {
  if (route.priority != 0) answer["priority"] = route.priority;
  if (route.match.empty()) return;
  nlohmann::json& match = answer["match"] = nlohmann::json::object();
  for (const auto& [name, value] : route.match.headers) match["headers"][name] = value;
  for (const auto& [name, value] : route.match.query) match["query"][name] = value;
  for (const auto& [name, value] : route.match.cookies) match["cookies"][name] = value;
  for (const Cidr& network : route.match.clients) match["clients"].push_back(network.to_string());
}

}  // namespace

PolicyWords policy_words(PoolPolicy policy) {
  switch (policy) {
    case PoolPolicy::weighted_round_robin:
      return {"weighted_round_robin", "the next in turn of those that take new work, as often as their weights say"};
    case PoolPolicy::least_requests:
      return {"least_requests", "the one with the fewest requests under way for its weight, at that moment"};
    case PoolPolicy::random_of_two:
      return {"random_of_two", "of two random ones, the one with fewer requests under way for its weight"};
    case PoolPolicy::peak_ewma:
      return {"peak_ewma",
              "of two random ones, the one with the smaller product of answer time and requests under way"};
    case PoolPolicy::ring_hash:
      return {"ring_hash", ""};
    case PoolPolicy::consistent_hash:
      break;
  }
  return {"consistent_hash", ""};
}

Result<nlohmann::json> explain_request(const Plan& plan, const cache::Cache* cache, const HttpRequest& http_request) {
  nlohmann::json answer{{"plane", "l7"},
                        {"eligible", nlohmann::json::array()},
                        {"parameters", nlohmann::json::object()},
                        {"policies", nlohmann::json::array()}};
  for (const char* undecided : {"listener", "route", "cache", "pool", "policy", "backend"}) answer[undecided] = nullptr;
  Arena arena;
  const std::string url_text = http_request.parameter("url").value_or("");
  const std::string client = http_request.parameter("client").value_or("");
  const std::string method = http_request.parameter("method").value_or("GET");
  std::optional<Url> url = parse_url(url_text, arena);
  if (!url) return fail("url: expected http://HOST/PATH or https://HOST/PATH");
  if (!client.empty() && !IpAddress::parse(client)) return fail("client: expected an IP address");
  url->request.method = method;
  const uint32_t listener = listener_for(plan, *url);
  if (listener == kNone) {
    answer["reason"] = fmt::format("no listener of this node takes {}", url->tls ? "https" : "http");
    return answer;
  }
  answer["listener"] = plan.model().listeners[listener].name;
  if (const ListenerClients& clients = plan.model().listeners[listener].tls.clients; clients.enabled) {
    answer["client_certificates"] = {
        {"required", !clients.optional}, {"ca_file", clients.ca.name}, {"crl_file", clients.crl.name}};
  }
  RouteParameters parameters;
  const std::string_view path =
      path_for_routes(url->request.path, plan.model().listeners[listener].merge_slashes, arena);
  add_fields(http_request, url->request, arena);
  const RequestConditions judge(url->request, client);
  const RouteMatch match = plan.router->match(listener, method, url->request.host, path, parameters, &judge);
  const std::string_view route_name = match.route == kNone ? std::string_view() : plan.model().routes[match.route].name;
  const policy::Chain* const chain = plan.policies.chain(listener, match.route);
  const policy::Subject subject{url->request, client, route_name, {}, &parameters};
  explain_policies(chain, subject, answer);
  if (match.route == kNone) {
    answer["reason"] = match.method_refused ? "routes match this path, but none takes the method: 405"
                                            : "no route matches this host and path: 404";
    return answer;
  }
  const Route& route = plan.model().routes[match.route];
  answer["route"] = route.name;
  explain_conditions(route, answer);
  for (size_t i = 0; i < parameters.count; ++i) {
    answer["parameters"][std::string(parameters.items[i].first)] = std::string(parameters.items[i].second);
  }
  if (const RouteRedirect* redirect = route.redirect()) {
    answer["reason"] = fmt::format("redirected to {}", redirect->location);
  } else if (const RouteAnswer* fixed = route.answer()) {
    answer["reason"] = fmt::format("answered by the route itself: {}", fixed->status);
  } else {
    if (route.grpc_web) answer["grpc_web"] = true;
    explain_cache(cache, route, *url, answer);
    explain_pool(plan, match.route, url->request, client, policy::split_pool_of(chain, subject), answer);
  }
  return answer;
}

}  // namespace tidegate::l7
