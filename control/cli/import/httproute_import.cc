// SPDX-License-Identifier: Apache-2.0
// Objects of the Kubernetes Gateway API as an edge: a Gateway's listeners, and HTTPRoutes. What a rule says and cannot
// be taken is answered as the Gateway API asks of a rule that is not valid: by 500.

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "conf/limits.h"
#include "conf/names.h"
#include "control/cli/import/cases.h"
#include "control/cli/import/gateway_filters.h"
#include "control/cli/import/gateway_listeners.h"
#include "control/cli/import/gateway_matches.h"
#include "control/cli/import/gateway_services.h"
#include "control/cli/import/imported.h"
#include "control/cli/import/kubernetes_objects.h"

namespace tidegate::cli {
namespace {

using nlohmann::json;
using namespace kube;  // NOLINT(google-build-using-namespace): the helpers of this folder
using Kind = DocumentNode::Kind;

constexpr uint32_t kNoEndpoint = 503;
constexpr uint64_t kWholeWeight = 10'000;  // of a pool

class GatewayImport {
 public:
  explicit GatewayImport(Imported& into) : into_(into) {}

  void run(const std::vector<DocumentNode>& objects) {
    for (const DocumentNode& object : objects) {
      if (text_at(&object, {"kind"}) == "Namespace") listeners_.add_namespace(object);
    }
    std::vector<const DocumentNode*> gateways, routes;
    for (const DocumentNode& object : objects) {
      const std::string kind = text_at(&object, {"kind"});
      if (services_.read(object, into_) || kind == "Namespace" || kind == "GatewayClass") continue;
      if (kind == "Gateway" || kind == "HTTPRoute") {
        (kind == "Gateway" ? gateways : routes).push_back(&object);
      } else {
        into_.leave(object.line, "kind: " + kind, "it has no counterpart");
      }
    }
    for (const DocumentNode* object : gateways) listeners_.add_gateway(*object);
    if (gateways.empty()) listeners_.add_only_listener();
    for (const DocumentNode* object : routes) route(*object);
    matches_.make_routes();
  }

 private:
  void judge(const DocumentNode& node, const std::string& text, const Result<void>& outcome) {
    into_.judge(node.line, text, outcome);
  }

  // Routes ----------------------------------------------------------------------------------------------------------

  void route(const DocumentNode& object) {
    const DocumentNode* spec = object.find("spec");
    if (spec == nullptr || !spec->is_map()) return into_.leave(object.line, "kind: HTTPRoute", "it has no spec");
    into_.take();
    read_only(into_, *spec, "spec", {{"parentRefs", Kind::list}, {"hostnames", Kind::list}, {"rules", Kind::list}});
    GatewayRoute route;
    route.name = text_at(&object, {"metadata", "name"});
    route.space = namespace_of(object);
    route.stamp = text_at(&object, {"metadata", "creationTimestamp"});
    std::vector<std::string> hosts;
    for (const DocumentNode& host : items(spec->find("hostnames"))) {
      judge(host, "hostname", host.is_scalar() && !host.text.empty() ? Result<void>() : fail("it is no name"));
      if (host.is_scalar() && !host.text.empty()) hosts.push_back(host.text);
    }
    const bool all_hosts_bad = hosts.empty() && !items(spec->find("hostnames")).empty();
    std::set<const GatewayListener*> attached;
    for (const DocumentNode& parent : items(spec->find("parentRefs")))
      judge(parent, "parentRef " + text_at(&parent, {"name"}), listeners_.attach(parent, route.space, attached));
    if (!all_hosts_bad) route.where = listeners_.places_of(hosts, attached);
    const std::vector<DocumentNode>& rules = items(spec->find("rules"));
    if (rules.empty()) into_.leave(spec->line, "spec", "it has no rules");
    size_t number = 0;
    for (const DocumentNode& node : rules) {
      const std::string name = fmt::format("{}-{}", name_of(route.name), ++number);
      if (route.where.empty()) {
        into_.leave(node.line, "rule " + name, "no listener takes the route, or has a hostname of it");
      } else {
        rule(node, name, route);
      }
    }
  }

  // Rules -----------------------------------------------------------------------------------------------------------

  void rule(const DocumentNode& node, const std::string& name, const GatewayRoute& route) {
    read_only(into_, node, "rule",
              {{"name", Kind::scalar},
               {"matches", Kind::list},
               {"filters", Kind::list},
               {"backendRefs", Kind::list},
               {"timeouts", Kind::map},
               {"retry", Kind::map},
               {"sessionPersistence", Kind::map}});
    GatewayFilters filters(into_, services_, route.space);
    json closed;  // null: the rule does what it says
    const auto close = [&](const DocumentNode& at_node, const std::string& text, const std::string& why) {
      if (closed.is_null()) closed = closed_answer(kGatewayNotValid, at_node.line, text, why);
    };
    for (const DocumentNode& filter : items(node.find("filters"))) add_filter(filter, filters, name, close);
    json answer = json::object();
    json pool = json::object();
    add_timeouts(node, answer);
    add_retry(node, answer, pool);
    add_persistence(node, pool);
    if (filters.redirects()) {
      answer = json::object();  // nobody is asked
    } else {
      add_backends(node, name, route, filters, answer, pool, closed.is_null(), close);
    }
    if (!closed.is_null() && answer.contains("pool")) {
      into_.remove("pools", answer["pool"]);
      answer = closed;
    }
    const GatewayRule made{route, name, filters, answer, closed};
    const std::vector<DocumentNode>& matches = items(node.find("matches"));
    if (matches.empty()) {
      into_.take();
      matches_.add(nullptr, node, made);
    }
    for (const DocumentNode& match : matches) matches_.add(&match, match, made);
  }

  template <class Close>
  void add_filter(const DocumentNode& filter, GatewayFilters& filters, const std::string& name, const Close& close) {
    bool must = true;
    const std::string text = "filter " + text_at(&filter, {"type"});
    const Result<void> outcome = filters.add(filter, name, must);
    if (!outcome && must) {
      close(filter, text, outcome.error().message);
      return judge(filter, text, fail(outcome.error().message + "; the rule answers 500 instead"));
    }
    judge(filter, text, outcome);
  }

  void add_timeouts(const DocumentNode& node, json& answer) {
    const DocumentNode* timeouts = node.find("timeouts");
    if (timeouts == nullptr || !timeouts->is_map()) return;
    read_only(into_, *timeouts, "timeouts", {{"request", Kind::scalar}, {"backendRequest", Kind::scalar}});
    for (const DocumentNode& timeout : timeouts->children) {
      constexpr uint64_t kHourMs = 3'600'000;
      const std::optional<uint64_t> time = milliseconds_of(timeout.text);
      const bool of_try = timeout.key == "backendRequest";
      if (!of_try && timeout.key != "request") continue;
      const bool fits = time && (!of_try || *time <= kHourMs);
      if (fits && *time > 0) answer[of_try ? "try_timeout" : "total_timeout"] = fmt::format("{}ms", *time);
      judge(timeout, "timeouts." + timeout.key,
            fits ? Result<void>() : fail(time ? "it is longer than an hour" : "it is no duration"));
    }
  }

  void add_retry(const DocumentNode& node, json& answer, json& pool) {
    const DocumentNode* retry = node.find("retry");
    if (retry == nullptr || !retry->is_map()) return;
    read_only(into_, *retry, "retry", {{"attempts", Kind::scalar}, {"codes", Kind::list}});
    for (const DocumentNode& code : items(retry->find("codes"))) {
      const std::optional<uint64_t> status = number_of(code.text);
      const bool is_failure = status && *status >= 400 && *status <= 599;
      if (is_failure) answer["retry_statuses"].push_back(*status);
      judge(code, "retry.codes",
            is_failure ? Result<void>() : fail(fmt::format("{} is none of 400 to 599", in_quotes(code.text))));
    }
    if (retry->find("attempts") == nullptr) return into_.take();  // as often as a pool tries by default
    const std::optional<uint64_t> attempts = number_of(text_at(retry, {"attempts"}));
    if (attempts) pool["retry_attempts"] = std::min<uint64_t>(*attempts, 16);
    judge(*retry, "retry", attempts ? Result<void>() : fail("a pool has a number of attempts"));
  }

  void add_persistence(const DocumentNode& node, json& pool) {
    const DocumentNode* keep = node.find("sessionPersistence");
    if (keep == nullptr || !keep->is_map()) return;
    read_only(into_, *keep, "sessionPersistence",
              {{"sessionName", Kind::scalar},
               {"type", Kind::scalar},
               {"absoluteTimeout", Kind::scalar},
               {"cookieConfig", Kind::map}});
    const std::string type = text_at(keep, {"type"}), name = text_at(keep, {"sessionName"});
    json sticky = {{"by", type == "Header" ? "header" : "cookie"}};
    if (!name.empty()) sticky["name"] = name;
    if (const auto time = milliseconds_of(text_at(keep, {"absoluteTimeout"})); time && *time >= 1000)
      sticky["ttl"] = fmt::format("{}s", *time / 1000);
    pool["sticky"] = sticky;
    into_.take();
  }

  // A backendRef that is taken.
  struct Share {
    uint64_t weight;
    GatewayBackends backends;
    json edits;  // of its own fields, as keys of a variant
  };

  template <class Close>
  void add_backends(const DocumentNode& node, const std::string& name, const GatewayRoute& route,
                    GatewayFilters& filters, json& answer, json& pool, bool open, const Close& close) {
    std::vector<Share> shares;
    uint64_t whole = 0, not_valid = 0, no_endpoint = 0;
    const std::vector<DocumentNode>& refs = items(node.find("backendRefs"));
    for (const DocumentNode& ref : refs) {
      const std::string text = "backendRef " + text_at(&ref, {"name"});
      read_only(into_, ref, "backendRef",
                {{"group", Kind::scalar},
                 {"kind", Kind::scalar},
                 {"namespace", Kind::scalar},
                 {"name", Kind::scalar},
                 {"port", Kind::scalar},
                 {"weight", Kind::scalar},
                 {"filters", Kind::list}});
      const uint64_t weight = std::min<uint64_t>(number_of(text_at(&ref, {"weight"})).value_or(1), 1'000'000);
      whole += weight;
      Result<GatewayBackends> found = services_.find(ref, route.space);
      const std::vector<DocumentNode>& own = items(ref.find("filters"));
      json edits = json::object();
      if (refs.size() == 1) {
        for (const DocumentNode& filter : own) add_filter(filter, filters, name, close);
      } else if (found && !own.empty()) {
        Result<void> edited = GatewayFilters(into_, services_, route.space).edit_variant(ref, edits);
        if (!edited) found = edited.error();
      }
      // A pool speaks in one way with all.
      if (found && !shares.empty() && weight > 0 && found->pool != shares.front().backends.pool)
        found = fail("the backends of a rule want different protocols or TLS");
      if (!found) {
        if (weight > 0) not_valid += weight;
        judge(ref, text, fail(found.error().message + "; its share is answered by 500 instead"));
        continue;
      }
      if (found->places.empty()) {
        no_endpoint += weight;
        judge(ref, text, fail("no endpoint of it is ready; its share is answered by 503 instead"));
        continue;
      }
      into_.take();
      if (weight > 0) shares.push_back({weight, *std::move(found), std::move(edits)});
    }
    if (shares.empty()) {
      const bool waits = no_endpoint > 0 && not_valid == 0;
      answer = closed_answer(waits ? kNoEndpoint : kGatewayNotValid, node.line, "rule " + name,
                             waits ? "no endpoint is ready" : "no backend of it is valid, or has a weight");
      return;
    }
    const bool edits_some =
        std::any_of(shares.begin(), shares.end(), [](const Share& each) { return !each.edits.empty(); });
    if (edits_some && shares.size() > kSplitVariantsMost) {
      close(node, "rule " + name, "so many backends with fields of their own are not taken");
      open = false;
    }
    if (edits_some && open) {
      split_shares(node, name, shares, answer, pool);
    } else {
      weigh_shares(name, shares, answer, pool);
    }
    if (not_valid + no_endpoint > 0) {
      const double percent = 100.0 * static_cast<double>(not_valid + no_endpoint) / static_cast<double>(whole);
      answer["policies"].push_back(into_.policy(
          "no-backend",
          {{"fault", {{"abort", not_valid > 0 ? kGatewayNotValid : kNoEndpoint}, {"abort_percent", percent}}}}));
    }
  }

  // A pool for each share, as variants of a split with their own fields.
  void split_shares(const DocumentNode& node, const std::string& name, const std::vector<Share>& shares, json& answer,
                    json& pool) {
    if (pool.erase("sticky") > 0)
      into_.leave(node.line, "sessionPersistence", "backends with fields of their own are chosen for each request");
    json variants = json::array();
    for (const Share& share : shares) {
      const std::string pool_name = into_.free_name("pools", name);
      json& object = into_.object("pools", pool_name);
      object.update(pool);
      object.update(share.backends.pool);
      for (json place : share.backends.places) {
        place["name"] = fmt::format("b{}", object.contains("backends") ? object["backends"].size() + 1 : 1);
        object["backends"].push_back(std::move(place));
      }
      json variant = {{"name", pool_name}, {"pool", pool_name}, {"weight", share.weight}};
      variant.update(share.edits);
      variants.push_back(std::move(variant));
    }
    answer["pool"] = variants.front()["pool"];
    answer["policies"].push_back(into_.policy("backends", {{"split", {{"variants", variants}}}}));
  }

  // One pool of all shares.
  void weigh_shares(const std::string& name, const std::vector<Share>& shares, json& answer, json& pool) {
    // The fewer the endpoints of a share, the heavier is each.
    double heaviest = 0;
    for (const Share& share : shares)
      heaviest =
          std::max(heaviest, static_cast<double>(share.weight) / static_cast<double>(share.backends.places.size()));
    json backends = json::array();
    for (const Share& share : shares) {
      const double each =
          static_cast<double>(share.weight) / static_cast<double>(share.backends.places.size()) / heaviest;
      for (json place : share.backends.places) {
        place["name"] = fmt::format("b{}", backends.size() + 1);
        place["weight"] = std::max<uint64_t>(1, static_cast<uint64_t>(each * kWholeWeight + 0.5));
        backends.push_back(std::move(place));
      }
    }
    pool.update(shares.front().backends.pool);
    pool["backends"] = backends;
    const std::string pool_name = into_.free_name("pools", name);
    into_.object("pools", pool_name).update(pool);
    answer["pool"] = pool_name;
  }

  Imported& into_;
  GatewayServices services_;
  GatewayListeners listeners_{into_, services_};
  GatewayMatches matches_{into_};
};

}  // namespace

Result<void> import_httproute(std::string_view text, Imported& into) {
  const Result<std::vector<DocumentNode>> objects = objects_of(text);
  if (!objects) return objects.error();
  GatewayImport(into).run(*objects);
  return {};
}

}  // namespace tidegate::cli
