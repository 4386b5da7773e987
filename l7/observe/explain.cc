// SPDX-License-Identifier: Apache-2.0
#include "l7/observe/explain.h"

#include <fmt/format.h>

#include <algorithm>

#include <nlohmann/json.hpp>
#include <optional>

#include "conf/model.h"
#include "conf/model/listener.h"
#include "conf/model/policy.h"
#include "conf/model/pool.h"
#include "conf/model/route.h"
#include "conf/policy/limit.h"
#include "core/clock.h"
#include "l7/exchange/client_stream.h"
#include "l7/exchange/conditions.h"
#include "l7/exchange/forwarding.h"
#include "l7/exchange/grpc.h"
#include "l7/exchange/grpc_web.h"
#include "l7/limits.h"
#include "l7/listener/head_bound.h"
#include "l7/listener/listener.h"
#include "l7/observe/asked_request.h"
#include "l7/observe/explain_pool.h"
#include "l7/observe/url.h"
#include "l7/policy/preflight.h"
#include "l7/policy/split.h"

namespace tidegate::l7 {
namespace {

// The listener that a URL reaches: one with its port, else the first with its scheme, else the first behind trusted
// proxies, which may name the scheme.
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

// Why a rule has no verdict before there is a real request.
const char* why_not_asked(policy::Stage stage) {
  switch (stage) {
    case policy::Stage::authenticate:
      return "credentials are only checked with a request";
    case policy::Stage::authorise:
      return "it depends on who the client is, which only a request shows";
    case policy::Stage::fault:
      return "chance decides";
    default:
      return "it depends on the identity, which only a request shows";
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
  if (!route.match.path_regex.empty()) match["path_regex"] = route.match.path_regex;
  for (const auto& [name, pattern] : route.match.headers_regex) match["headers_regex"][name] = pattern;
  for (const auto& [name, pattern] : route.match.query_regex) match["query_regex"][name] = pattern;
}

// True if the policy counts by the client's name or by claims of its token, as a limit or a concurrency lane may.
bool counts_by_identity(const nlohmann::json& entry) {
  const auto is_one = [](const nlohmann::json& word) {
    return word.is_string() && needs_identity(word.get<std::string>());
  };
  const auto by = entry.find("by"), tenant = entry.find("tenant");
  return (by != entry.end() && by->is_array() && std::any_of(by->begin(), by->end(), is_one)) ||
         (tenant != entry.end() && is_one(*tenant));
}

// One question on its way through the steps of a Transaction, in the same order and by the same functions. What only a
// real request can show is listed in "not_asked", and never guessed.
class Explaining {
 public:
  Explaining(const Plan& plan, const cache::Cache* cache, AskedRequest& asked, Arena& arena, nlohmann::json& answer)
      : plan_(plan), cache_(cache), asked_(asked), request_(asked.request), arena_(arena), answer_(answer) {}

  void run(uint32_t listener, const Url& url, const std::string& client) {
    listener_ = listener;
    facts_ = facts_of(url, client);
    client_ = client_address(request_, facts_, config().trusted_proxies, arena_);
    if (asked_.refused_as != nullptr) return end_refused();
    if (client.empty()) not_asked("what depends on the client's address: none was given");
    explain_certificates();
    grpc_ = would_be_grpc();
    if (const std::optional<std::string_view> token = acme_token(request_.path);
        token && plan_.acme_answers.contains(*token) && (request_.method == "GET" || request_.method == "HEAD")) {
      return end({{"at", "acme"}, {"status", 200}}, "answered to a certificate authority");
    }
    const RouteMatch match = find_route();
    if (match.route != kNone && plan_.model().routes[match.route].grpc_web && GrpcWeb::take(request_, arena_)) {
      grpc_ = true;
    }
    ask_policies(match.route);
    if (match.route == kNone) return end_unrouted(match);
    take_route(match.route);
  }

 private:
  const Listener& config() const { return plan_.model().listeners[listener_]; }

  ClientFacts facts_of(const Url& url, const std::string& client) const {
    ClientFacts facts;
    facts.peer.address = IpAddress::parse(client).value_or(IpAddress{});
    facts.peer_text = client;
    facts.peer_trusted = !client.empty() && trusts(config(), facts.peer.address);
    facts.tls_version = url.tls ? "TLS" : "";
    return facts;
  }

  // gRPC needs HTTP/2, so such a request is treated as one over HTTP/2.
  bool would_be_grpc() const {
    RequestHead over_http2 = request_;
    over_http2.version = HttpVersion::http2;
    return is_grpc(over_http2);
  }

  void explain_certificates() {
    const ListenerClients& clients = config().tls.clients;
    if (!clients.enabled) return;
    answer_["client_certificates"] = {
        {"required", !clients.optional}, {"ca_file", clients.ca.name}, {"crl_file", clients.crl.name}};
    not_asked("the client's certificate: only a connection shows it");
  }

  void not_asked(std::string what) { answer_["not_asked"].push_back(std::move(what)); }

  // Where the request ends, unless something earlier ends it.
  void end(nlohmann::json where, std::string reason) {
    if (!answer_["ends"].is_null()) return;
    answer_["ends"] = std::move(where);
    answer_["reason"] = std::move(reason);
  }

  // The proxy itself answers. A gRPC call gets failures in the way of gRPC: 200 with a grpc-status.
  void fail_at(const char* where, Failure failure, std::string reason) {
    nlohmann::json ends{{"at", where}, {"status", grpc_ ? uint16_t{200} : info(failure).status}};
    if (grpc_) ends["grpc_status"] = std::string(grpc_status_of(failure));
    end(std::move(ends), std::move(reason));
  }

  void end_refused() {
    end({{"at", "head"}, {"status", asked_.refused_status}, {"failure", asked_.refused_as}},
        fmt::format("the request is malformed ({}): {}", asked_.refused_as, asked_.refused_status));
  }

  // A preflight takes the route of the request that it asks for, if a policy there answers it.
  RouteMatch find_route() {
    const std::string_view path = path_for_routes(request_.path, config().merge_slashes, arena_);
    if (plan_.policies.answers_preflights() && policy::is_preflight(request_)) {
      const std::string_view wanted = request_.fields.find(policy::kRequestMethod)->value;
      const RouteMatch match = match_route(wanted, path);
      const policy::Chain* const chain = plan_.policies.chain(listener_, match.route);
      if (match.route != kNone && chain != nullptr && chain->answers_preflights) return match;
    }
    return match_route(request_.method, path);
  }
  RouteMatch match_route(std::string_view method, std::string_view path) {
    const RequestConditions judge(request_, client_);
    return plan_.router->match(listener_, method, request_.host, path, parameters_, &judge);
  }

  // Lists every policy that applies there, in the order in which they are asked, and what each would decide now.
  void ask_policies(uint32_t route) {
    const policy::Chain* const chain = plan_.policies.chain(listener_, route);
    if (chain == nullptr) return;
    const uint64_t now_ns = monotonic_ns();
    const std::string_view route_name = route == kNone ? std::string_view() : plan_.model().routes[route].name;
    policy::Subject subject{request_, client_, route_name, {}, &parameters_};
    const uint32_t pool = route == kNone ? kNone : plan_.model().routes[route].pool();
    if (pool != kNone) subject.pool = plan_.model().pools[pool].name;
    const bool may_be_known = std::any_of(chain->rules.begin(), chain->rules.end(), [](const policy::Rule* rule) {
      return rule->stage == policy::Stage::authenticate;
    });
    for (const policy::Rule* rule : chain->rules) {
      nlohmann::json& entry = answer_["policies"].emplace_back(
          nlohmann::json{{"policy", rule->policy}, {"kind", rule->kind}, {"stage", policy::name(rule->stage)}});
      rule->explain(subject, now_ns, entry);
      // Rules of these stages do not decide how the request ends.
      if (rule->stage >= policy::Stage::compress || rule->stage == policy::Stage::mirror) continue;
      if (may_be_known && counts_by_identity(entry)) {
        entry.erase("verdict");
        entry.erase("because_of");
      }
      if (rule->stage == policy::Stage::split) {
        if (route != kNone && plan_.model().routes[route].pool() != kNone) take_split(*rule, entry);
      } else if (rule->stage == policy::Stage::transform) {
        forwarding_.emplace_back(rule, answer_["policies"].size() - 1);  // it is asked after the cache
      } else {
        judge(*rule, entry);
      }
    }
    // A route without a pool is not split.
    if (has_split_ && !split_is_open_) split_ = policy::split_choice_of(chain, subject);
  }

  // The first split of a chain chooses the pool. The other splits are not asked.
  void take_split(const policy::Rule& rule, const nlohmann::json& entry) {
    if (std::exchange(has_split_, true) || !entry["variant"].is_null()) return;
    split_is_open_ = true;
    not_asked(fmt::format("policy {}, split: chance, or who the client is, decides the pool", rule.policy));
  }

  void judge(const policy::Rule& rule, nlohmann::json& entry) {
    const auto verdict = entry.find("verdict");
    if (verdict == entry.end()) {
      entry["not_asked"] = why_not_asked(rule.stage);
      return not_asked(fmt::format("policy {}, {}: {}", rule.policy, rule.kind, why_not_asked(rule.stage)));
    }
    if (*verdict != "refused" && *verdict != "answered") return;
    const auto because = entry.find("because_of");
    const std::string why = because == entry.end() ? std::string() : fmt::format(" ({})", because->get<std::string>());
    end({{"at", "policy"}, {"policy", rule.policy}, {"kind", rule.kind}, {"verdict", *verdict}},
        fmt::format("policy {}, {}: {}{}", rule.policy, rule.kind, verdict->get<std::string>(), why));
  }

  void end_unrouted(const RouteMatch& match) {
    if (match.method_refused) {
      return fail_at("route", Failure::method_not_allowed, "routes match this path, but none takes the method: 405");
    }
    fail_at("route", Failure::no_route, "no route matches this host and path: 404");
  }

  void take_route(uint32_t index) {
    const Route& route = plan_.model().routes[index];
    answer_["route"] = route.name;
    explain_conditions(route, answer_);
    for (size_t i = 0; i < parameters_.count; ++i) {
      answer_["parameters"][std::string(parameters_.items[i].first)] = std::string(parameters_.items[i].second);
    }
    if (const RouteRedirect* const redirect = route.redirect()) {
      return end({{"at", "route"}, {"status", redirect->status}}, fmt::format("redirected to {}", redirect->location));
    }
    if (const RouteAnswer* const answer = route.answer()) {
      return end({{"at", "route"}, {"status", answer->status}},
                 fmt::format("answered by the route itself: {}", answer->status));
    }
    if (config().via && own_via_entries(request_, plan_.this_node().name) >= kOwnViaEntries) {
      return fail_at("route", Failure::loop_detected, "the request is in a loop: 508");
    }
    if (request_.body == BodyKind::known && request_.content_length > config().max_body_bytes) {
      return fail_at("route", Failure::body_too_large,
                     fmt::format("the body is longer than max_body, {} bytes: 413", config().max_body_bytes));
    }
    if (route.grpc_web) answer_["grpc_web"] = true;
    look_up(route);
    for (const auto& [rule, place] : forwarding_) judge(*rule, answer_["policies"][place]);
    if (split_is_open_) {
      if (answer_["ends"].is_null()) answer_["reason"] = "a split decides the pool when the request is there";
      return;
    }
    ask_pool(index);
  }

  // The pool is reported even if this request ends earlier: the next request may reach it.
  void ask_pool(uint32_t index) {
    const nlohmann::json ends = answer_["ends"], reason = answer_["reason"];
    explain_pool(plan_, index, request_, client_, split_.pool, answer_);
    if (!ends.is_null()) {
      answer_["reason"] = reason;
      return;
    }
    const std::string why = answer_["reason"];
    if (pool_for_route(plan_, index, split_.pool).members().empty()) return fail_at("pool", Failure::pool_down, why);
    if (answer_.value("breaker", "") == std::string("open")) return fail_at("pool", Failure::breaker_open, why);
    end({{"at", "backend"}}, why);
  }

  void look_up(const Route& route) {
    if (cache_ == nullptr || !route.cache.enabled) return;
    if (!request_.upgrade.empty()) return not_asked("the cache: whether the Upgrade is taken depends on the backend");
    if (split_is_open_) return not_asked("the cache: it keeps each variant's answers apart, and a split decides");
    nlohmann::json& entry = answer_["cache"];
    const bool safe = request_.method == "GET" || request_.method == "HEAD" || request_.method == "OPTIONS" ||
                      request_.method == "TRACE";
    if (request_.body != BodyKind::none && safe) {
      entry = {{"outcome", cache::name(cache::LookupOutcome::bypass)}, {"detail", "content"}};
      return;
    }
    std::vector<http1::Field> fields;
    for (const Field& field : request_.fields) fields.push_back({field.name, field.value});
    const cache::Explanation found =
        cache_->explain({request_.method, client_scheme(request_, facts_), request_.authority, request_.path,
                         request_.query, cache::Fields(fields.data(), fields.size()), split_.branch},
                        route.cache, realtime_ns() / kNsPerMs);
    entry = {{"outcome", cache::name(found.outcome)}, {"key", found.key}};
    entry["variant"] = split_.branch.empty() ? nlohmann::json() : nlohmann::json(split_.branch);
    entry["age_s"] = found.age_s ? nlohmann::json(*found.age_s) : nlohmann::json();
    if (found.status.detail != nullptr) entry["detail"] = found.status.detail;
    if (found.outcome == cache::LookupOutcome::hit || found.outcome == cache::LookupOutcome::stale) {
      end({{"at", "cache"}}, fmt::format("the cache answers: {}", cache::name(found.outcome)));
    } else if (found.outcome == cache::LookupOutcome::refuse) {
      end({{"at", "cache"}, {"status", 504}}, "the client wants what is stored, and nothing is: 504");
    }
  }

  const Plan& plan_;
  const cache::Cache* const cache_;
  const AskedRequest& asked_;
  RequestHead& request_;
  Arena& arena_;
  nlohmann::json& answer_;
  uint32_t listener_ = kNone;
  ClientFacts facts_;
  std::string_view client_;
  RouteParameters parameters_;
  std::vector<std::pair<const policy::Rule*, size_t>> forwarding_;  // with their indexes in "policies"
  policy::SplitChoice split_;
  bool grpc_ = false;
  bool has_split_ = false, split_is_open_ = false;
};

}  // namespace

Result<nlohmann::json> explain_request(const Plan& plan, const cache::Cache* cache, const HttpRequest& http_request) {
  nlohmann::json answer{{"plane", "l7"},
                        {"eligible", nlohmann::json::array()},
                        {"parameters", nlohmann::json::object()},
                        {"policies", nlohmann::json::array()},
                        {"not_asked", nlohmann::json::array()}};
  for (const char* undecided : {"listener", "route", "cache", "pool", "policy", "backend", "ends"}) {
    answer[undecided] = nullptr;
  }
  Arena arena;
  const std::string url_text = http_request.parameter("url").value_or("");
  const std::string client = http_request.parameter("client").value_or("");
  const std::optional<Url> url = parse_url(url_text, arena);
  if (!url) return fail("url: expected http://HOST/PATH or https://HOST/PATH");
  if (!client.empty() && !IpAddress::parse(client)) return fail("client: expected an IP address");
  const uint32_t listener = listener_for(plan, *url);
  if (listener == kNone) {
    answer["reason"] = fmt::format("no listener of this node takes {}", url->tls ? "https" : "http");
    return answer;
  }
  const Listener& config = plan.model().listeners[listener];
  answer["listener"] = config.name;
  AskedRequest asked;
  const http1::Limits limits{.head_bytes = std::min(config.max_header_bytes, kLargestHead),
                             .fields = std::min<size_t>(config.max_fields, http1::kMaxFields)};
  if (Result<void> read = read_asked_request(http_request, *url, limits, arena, asked); !read) return read.error();
  Explaining(plan, cache, asked, arena, answer).run(listener, *url, client);
  return answer;
}

}  // namespace tidegate::l7
