// SPDX-License-Identifier: Apache-2.0
// Objects of the Kubernetes Gateway API as an edge: a Gateway's listeners, and HTTPRoutes. What a rule says and cannot
// be taken is answered as the Gateway API asks of a rule that is not valid: by 500.

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <tuple>

#include "conf/limits.h"
#include "conf/names.h"
#include "control/cli/import/cases.h"
#include "control/cli/import/gateway_filters.h"
#include "control/cli/import/gateway_services.h"
#include "control/cli/import/imported.h"
#include "control/cli/import/kubernetes_objects.h"
#include "core/http1.h"
#include "core/regex.h"

namespace tidegate::cli {
namespace {

using nlohmann::json;
using namespace kube;  // NOLINT(google-build-using-namespace): the helpers of this folder
using Kind = DocumentNode::Kind;

constexpr uint32_t kNotValid = 500, kNoEndpoint = 503;
constexpr uint64_t kWholeWeight = 10'000;  // of a pool

bool host_covers(std::string_view wide, std::string_view narrow) {
  if (wide.empty() || wide == narrow) return true;
  return wide.starts_with("*.") && narrow.size() >= wide.size() && narrow.ends_with(wide.substr(1));
}

class GatewayImport {
 public:
  explicit GatewayImport(Imported& into) : into_(into) {}

  void run(const std::vector<DocumentNode>& objects) {
    bool any_gateway = false;
    for (const DocumentNode& object : objects) {
      if (text_at(&object, {"kind"}) == "Namespace") name_space(object);
    }
    std::vector<const DocumentNode*> gateways, routes;
    for (const DocumentNode& object : objects) {
      const std::string kind = text_at(&object, {"kind"});
      if (services_.read(object, into_) || kind == "Namespace" || kind == "GatewayClass") continue;
      if (kind == "Gateway" || kind == "HTTPRoute") {
        (kind == "Gateway" ? gateways : routes).push_back(&object);
        any_gateway = any_gateway || kind == "Gateway";
      } else {
        into_.leave(object.line, "kind: " + kind, "it has no counterpart");
      }
    }
    for (const DocumentNode* object : gateways) gateway(*object);
    if (!any_gateway) {
      into_.object("listeners", "http")["bind"] = json::array({"0.0.0.0:80"});
      listeners_.push_back({});
      listeners_.back().name = "http";
    }
    any_gateway_ = any_gateway;
    for (const DocumentNode* object : routes) route(*object);
    add_entries();
  }

 private:
  struct Listener {
    std::string name, gateway, space, section, host;  // name: ours
    uint16_t port = 80;
    bool tls = false;
    std::string from = "Same";  // whose routes may come: Same, All, or "" for namespaces_
    std::set<std::string> namespaces;
    bool http_routes = true;
  };

  void judge(const DocumentNode& node, const std::string& text, const Result<void>& outcome) {
    into_.judge(node.line, text, outcome);
  }

  // Gateways --------------------------------------------------------------------------------------------------------

  void name_space(const DocumentNode& object) {
    into_.take();
    std::map<std::string, std::string>& labels = namespaces_[text_at(&object, {"metadata", "name"})];
    if (const DocumentNode* found = at(&object, {"metadata", "labels"}); found != nullptr && found->is_map()) {
      for (const DocumentNode& label : found->children) labels[label.key] = label.text;
    }
  }

  void gateway(const DocumentNode& object) {
    const DocumentNode* spec = object.find("spec");
    if (spec == nullptr || !spec->is_map()) return into_.leave(object.line, "kind: Gateway", "it has no spec");
    into_.take();
    read_only(into_, *spec, "spec", {{"gatewayClassName", Kind::scalar}, {"listeners", Kind::list}});
    for (const DocumentNode& node : items(spec->find("listeners"))) {
      Listener listener;
      listener.gateway = text_at(&object, {"metadata", "name"});
      listener.space = namespace_of(object);
      listener.section = text_at(&node, {"name"});
      judge(node, "listener " + listener.section, add_listener(node, listener));
    }
  }

  Result<void> add_listener(const DocumentNode& node, Listener& here) {
    const std::string protocol = text_at(&node, {"protocol"}), mode = text_at(&node, {"tls", "mode"});
    const std::optional<uint64_t> port = number_of(text_at(&node, {"port"}));
    read_only(into_, node, "listener",
              {{"name", Kind::scalar},
               {"hostname", Kind::scalar},
               {"port", Kind::scalar},
               {"protocol", Kind::scalar},
               {"tls", Kind::map},
               {"allowedRoutes", Kind::map}});
    if (protocol != "HTTP" && protocol != "HTTPS") return fail("a listener speaks HTTP or HTTPS");
    if (!port || *port == 0 || *port > 65535) return fail("it has no port");
    here.port = static_cast<uint16_t>(*port);
    here.host = text_at(&node, {"hostname"});
    here.tls = protocol == "HTTPS";
    const std::vector<DocumentNode>& certificates = items(at(&node, {"tls", "certificateRefs"}));
    if (!mode.empty() && mode != "Terminate") return fail("TLS ends at the proxy");
    if (here.tls && certificates.empty()) return fail("TLS needs certificateRefs");
    if (const DocumentNode* tls = node.find("tls"); tls != nullptr && here.tls) {
      const bool whole = read_only(into_, *tls, "tls",
                                   {{"mode", Kind::scalar}, {"certificateRefs", Kind::list}, {"options", Kind::map}});
      if (!whole) return fail("what else its TLS asks of clients is not taken");
      if (const DocumentNode* options = tls->find("options"))
        into_.leave(options->line, "tls.options", "there are none");
    }
    if (Result<void> allowed = read_allowed(node, here); !allowed) return allowed;
    std::vector<std::string> names;
    for (const DocumentNode& ref : certificates) {
      const std::string name = text_at(&ref, {"name"}), kind = text_at(&ref, {"kind"});
      std::string space = text_at(&ref, {"namespace"});
      if (space.empty()) space = here.space;
      if (!kind.empty() && kind != "Secret") return fail("a certificate is a Secret");
      if (!services_.grants("Gateway", here.space, "Secret", space, name))
        return fail(fmt::format("no ReferenceGrant of namespace '{}' lets namespace '{}' in", space, here.space));
      names.push_back(certificate_of(space, name));
    }
    const std::string scheme = here.tls ? "https" : "http";
    here.name = fmt::format("{}-{}", scheme, *port);
    if (into_.has("listeners", fmt::format("{}-{}", here.tls ? "http" : "https", *port)))
      return fail("another listener has this port with, or without, TLS");
    json& listener = into_.object("listeners", here.name);
    listener["bind"] = json::array({fmt::format("0.0.0.0:{}", *port)});
    for (const std::string& name : names) {
      json& list = listener["tls"]["certificates"];
      if (std::find(list.begin(), list.end(), name) == list.end()) list.push_back(name);
    }
    listeners_.push_back(here);
    return {};
  }

  std::string certificate_of(const std::string& space, const std::string& name) {
    std::string& known = certificates_[space + "/" + name];
    if (!known.empty()) return known;
    known = into_.free_name("certificates", name);
    json& object = into_.object("certificates", known);
    object["certificate_file"] = known + ".crt";
    object["key_file"] = known + ".key";
    return known;
  }

  Result<void> read_allowed(const DocumentNode& node, Listener& listener) {
    const DocumentNode* allowed = node.find("allowedRoutes");
    if (allowed == nullptr) return {};
    if (!read_only(into_, *allowed, "allowedRoutes", {{"namespaces", Kind::map}, {"kinds", Kind::list}}))
      return fail("whose routes may come is not known");
    const std::vector<DocumentNode>& kinds = items(allowed->find("kinds"));
    listener.http_routes = kinds.empty() || std::any_of(kinds.begin(), kinds.end(), [](const DocumentNode& kind) {
                             return text_at(&kind, {"kind"}) == "HTTPRoute";
                           });
    const std::string from = text_at(allowed, {"namespaces", "from"});
    if (from == "All" || from == "Same" || from.empty()) {
      listener.from = from.empty() ? "Same" : from;
      return {};
    }
    if (from != "Selector") return fail("whose routes may come is not known");
    listener.from.clear();
    const DocumentNode* selector = at(allowed, {"namespaces", "selector"});
    if (selector == nullptr) return fail("the selector is missing");
    if (!read_only(into_, *selector, "selector", {{"matchLabels", Kind::map}}))
      return fail("namespaces are chosen by matchLabels");
    const DocumentNode* wanted = selector->find("matchLabels");
    for (const auto& [name, labels] : namespaces_) {
      const bool has = wanted == nullptr || std::all_of(wanted->children.begin(), wanted->children.end(),
                                                        [&known = labels](const DocumentNode& label) {
                                                          const auto found = known.find(label.key);
                                                          return found != known.end() && found->second == label.text;
                                                        });
      if (has) listener.namespaces.insert(name);
    }
    return listener.namespaces.empty() ? fail("the file has no Namespace that is chosen: add them") : Result<void>();
  }

  // Routes ----------------------------------------------------------------------------------------------------------

  // Where a route holds. Listeners with the same hosts are together.
  struct Where {
    std::vector<std::string> hosts;
    std::vector<const Listener*> listeners;
  };
  struct Route {
    std::string name, space, stamp;
    std::vector<Where> where;
  };

  void route(const DocumentNode& object) {
    const DocumentNode* spec = object.find("spec");
    if (spec == nullptr || !spec->is_map()) return into_.leave(object.line, "kind: HTTPRoute", "it has no spec");
    into_.take();
    read_only(into_, *spec, "spec", {{"parentRefs", Kind::list}, {"hostnames", Kind::list}, {"rules", Kind::list}});
    Route route;
    route.name = text_at(&object, {"metadata", "name"});
    route.space = namespace_of(object);
    route.stamp = text_at(&object, {"metadata", "creationTimestamp"});
    std::vector<std::string> hosts;
    for (const DocumentNode& host : items(spec->find("hostnames"))) {
      judge(host, "hostname", host.is_scalar() && !host.text.empty() ? Result<void>() : fail("it is no name"));
      if (host.is_scalar() && !host.text.empty()) hosts.push_back(host.text);
    }
    const bool all_hosts_bad = hosts.empty() && !items(spec->find("hostnames")).empty();
    std::set<const Listener*> attached;
    for (const DocumentNode& parent : items(spec->find("parentRefs")))
      judge(parent, "parentRef " + text_at(&parent, {"name"}), attach(parent, route.space, attached));
    for (const Listener& listener : listeners_) {
      if (attached.count(&listener) == 0 || all_hosts_bad) continue;
      std::optional<std::vector<std::string>> shared = shared_hosts(hosts, listener);
      if (!shared) continue;
      const auto same = std::find_if(route.where.begin(), route.where.end(),
                                     [&](const Where& where) { return where.hosts == *shared; });
      if (same != route.where.end()) {
        same->listeners.push_back(&listener);
      } else {
        route.where.push_back({*shared, {&listener}});
      }
    }
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

  Result<void> attach(const DocumentNode& parent, const std::string& space, std::set<const Listener*>& attached) {
    const std::string kind = text_at(&parent, {"kind"}), name = text_at(&parent, {"name"}),
                      section = text_at(&parent, {"sectionName"});
    std::string of = text_at(&parent, {"namespace"});
    if (of.empty()) of = space;
    read_only(into_, parent, "parentRef",
              {{"group", Kind::scalar},
               {"kind", Kind::scalar},
               {"namespace", Kind::scalar},
               {"name", Kind::scalar},
               {"sectionName", Kind::scalar},
               {"port", Kind::scalar}});
    if (!kind.empty() && kind != "Gateway") return fail("a route belongs to a Gateway");
    const DocumentNode* port = parent.find("port");
    Result<void> outcome = fail("the file has no such Gateway, or none of its listeners is taken");
    for (const Listener& listener : listeners_) {
      if (any_gateway_) {
        if (listener.gateway != name || listener.space != of) continue;
        if (!section.empty() && section != listener.section) continue;
        if (port != nullptr && number_of(port->text) != listener.port) continue;
        const bool welcome =
            listener.http_routes && (listener.from == "All" || (listener.from == "Same" && listener.space == space) ||
                                     listener.namespaces.count(space) != 0);
        if (!welcome) {
          if (!outcome) outcome = fail("allowedRoutes of the listener keeps it out");
          continue;
        }
      }
      attached.insert(&listener);
      outcome = {};
    }
    return outcome;
  }

  // The hosts that a route and a listener have in common. Nothing: none. An empty list: any.
  std::optional<std::vector<std::string>> shared_hosts(const std::vector<std::string>& hosts,
                                                       const Listener& listener) {
    std::vector<std::string> out;
    for (const std::string& host : hosts.empty() ? std::vector<std::string>{""} : hosts) {
      const bool narrower = host_covers(listener.host, host);
      if (!narrower && !host_covers(host, listener.host)) continue;
      const std::string& both = narrower ? host : listener.host;
      // A request is for the listener whose name is the closest.
      const bool closer = std::any_of(listeners_.begin(), listeners_.end(), [&](const Listener& other) {
        return other.name == listener.name && other.host != listener.host && host_covers(listener.host, other.host) &&
               !other.host.empty() && host_covers(other.host, both);
      });
      if (!closer && std::find(out.begin(), out.end(), both) == out.end()) out.push_back(both);
    }
    if (out.empty()) return std::nullopt;
    if (out.front().empty()) out.clear();
    return out;
  }

  // Rules -----------------------------------------------------------------------------------------------------------

  void rule(const DocumentNode& node, const std::string& name, const Route& route) {
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
      if (closed.is_null()) closed = closed_answer(kNotValid, at_node.line, text, why);
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
    const std::vector<DocumentNode>& matches = items(node.find("matches"));
    if (matches.empty()) {
      into_.take();
      add_match(nullptr, node, name, route, filters, answer, closed);
    }
    for (const DocumentNode& match : matches) add_match(&match, match, name, route, filters, answer, closed);
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
  void add_backends(const DocumentNode& node, const std::string& name, const Route& route, GatewayFilters& filters,
                    json& answer, json& pool, bool open, const Close& close) {
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
      answer = closed_answer(waits ? kNoEndpoint : kNotValid, node.line, "rule " + name,
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
          "no-backend", {{"fault", {{"abort", not_valid > 0 ? kNotValid : kNoEndpoint}, {"abort_percent", percent}}}}));
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

  // Matches ---------------------------------------------------------------------------------------------------------

  // Fields or parameters of a match.
  static Result<void> add_conditions(const DocumentNode* list, const std::string& kind, json& match) {
    std::set<std::string> names;
    for (const DocumentNode& each : items(list)) {
      const std::string type = text_at(&each, {"type"}), value = text_at(&each, {"value"});
      std::string name = text_at(&each, {"name"});
      if (kind == "headers") {
        std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::tolower(c); });
      }
      const bool is_regex = type == "RegularExpression";
      if (!type.empty() && type != "Exact" && !is_regex) return fail(fmt::format("{} match no {}", kind, type));
      if (!http1::is_token(name)) return fail(fmt::format("a route cannot ask for this name of {}", kind));
      if (is_regex) {
        if (Result<void> checked = check_regex(value); !checked) return checked;
      }
      if (!names.insert(name).second) continue;         // the first of a name counts
      const bool word = value.empty() || value == "*";  // they mean something else in a route
      match[kind + (is_regex || word ? "_regex" : "")][name] = word && !is_regex ? quoted_regex(value) : value;
    }
    return {};
  }

  static Result<void> check_regex(const std::string& pattern) {
    const Result<Regex> regex = Regex::compile(pattern, kRegexMemoryBytes);
    if (!regex) return fail("RE2 does not take the regular expression: " + regex.error().message);
    return {};
  }

  // A route that is to be made, and its rank among those of the same path.
  struct Entry {
    std::string path, name;
    std::tuple<size_t, size_t, size_t, size_t> rank;   // higher first: path, method, headers, parameters
    std::tuple<std::string, std::string, size_t> age;  // lower first: time stamp, name, place in the file
    std::vector<std::string> listeners, hosts;
    When when;
    json answer;
    uint32_t line = 0;
  };

  void add_match(const DocumentNode* match, const DocumentNode& place, const std::string& name, const Route& route,
                 const GatewayFilters& filters, const json& answer, const json& closed) {
    Entry entry;
    entry.name = name;
    entry.line = place.line;
    json refused = closed;
    Result<void> outcome;
    const auto refuse = [&](const std::string& why) {
      if (outcome) outcome = fail(why + "; it answers 500 instead");
      if (refused.is_null()) refused = closed_answer(kNotValid, place.line, "match of " + name, why);
    };
    if (match != nullptr &&
        !read_only(
            into_, *match, "match",
            {{"path", Kind::map}, {"headers", Kind::list}, {"queryParams", Kind::list}, {"method", Kind::scalar}})) {
      refuse("what else it asks for is not taken");
    }
    json& conditions = entry.when.match;
    if (Result<void> added = add_conditions(at(match, {"headers"}), "headers", conditions); !added)
      refuse(added.error().message);
    if (Result<void> added = add_conditions(at(match, {"queryParams"}), "query", conditions); !added)
      refuse(added.error().message);
    const std::string type = text_at(match, {"path", "type"}), method = text_at(match, {"method"});
    std::string path = text_at(match, {"path", "value"});
    if (path.empty()) path = "/";
    std::string prefix;
    size_t by_regex = 0;
    if (type == "RegularExpression") {
      if (Result<void> checked = check_regex(path); !checked) refuse(checked.error().message);
      if (outcome) conditions["path_regex"] = path;
      path = "/*";
      by_regex = 1;
    } else if (!type.empty() && type != "Exact" && type != "PathPrefix") {
      refuse("there is no such match of a path");
      path = "/*";
    } else {
      // An end slash of a prefix does not count.
      if (type != "Exact" && path.size() > 1 && path.ends_with('/')) path.pop_back();
      if (type != "Exact") prefix = path;
      const bool plain = path.front() == '/' && path.find_first_of("*{}?#%\\ ") == std::string::npos;
      if (!plain) {
        conditions["path_regex"] = quoted_regex(path) + (type == "Exact" ? "" : "(?:/.*)?");
        path = "/*";
        by_regex = 1;
      } else if (type != "Exact") {
        path += path.ends_with('/') ? "*" : "/*";
      }
    }
    entry.path = path;
    if (!method.empty()) entry.when.methods = {method};
    const auto count = [&](const char* exact, const char* regex) {
      return (conditions.contains(exact) ? conditions[exact].size() : 0) +
             (conditions.contains(regex) ? conditions[regex].size() : 0);
    };
    entry.rank = {by_regex, method.empty() ? 0 : 1, count("headers", "headers_regex"), count("query", "query_regex")};
    entry.age = {route.stamp.empty() ? "9999" : route.stamp, route.space + "/" + route.name, entries_.size()};
    for (const Where& where : route.where) {
      for (const bool tls : {false, true}) {
        for (const uint16_t port : ports_of(where, filters, tls)) {
          entry.listeners.clear();
          for (const Listener* listener : where.listeners) {
            if (!filters.depends_on_listener() || (listener->tls == tls && listener->port == port)) {
              if (std::find(entry.listeners.begin(), entry.listeners.end(), listener->name) == entry.listeners.end())
                entry.listeners.push_back(listener->name);
            }
          }
          entry.hosts = where.hosts;
          entry.answer = refused.is_null() ? answer : refused;
          if (refused.is_null() && !is_closed(answer)) {
            if (Result<void> applied = filters.apply(entry.answer, prefix, tls, port); !applied) {
              refuse(applied.error().message);
              entry.answer = refused;
            }
          }
          entries_.push_back(entry);
        }
      }
    }
    if (match != nullptr) judge(place, "match of " + name, outcome);
    if (match == nullptr && !outcome) into_.leave(place.line, "rule " + name, outcome.error().message);
  }

  // The ports for which a rule needs a route of its own; one of any kind if it needs none.
  static std::vector<uint16_t> ports_of(const Where& where, const GatewayFilters& filters, bool tls) {
    if (!filters.depends_on_listener()) return tls ? std::vector<uint16_t>() : std::vector<uint16_t>{80};
    std::vector<uint16_t> ports;
    for (const Listener* listener : where.listeners) {
      if (listener->tls == tls && std::find(ports.begin(), ports.end(), listener->port) == ports.end())
        ports.push_back(listener->port);
    }
    return ports;
  }

  // The Gateway API's precedence of matches with one path: a method, then the most headers, then the most parameters,
  // then the oldest, the first by name, and the first in the file. A regular expression of the path comes before the
  // path that stands for all.
  void add_entries() {
    std::map<std::string, std::vector<const Entry*>> by_path;
    for (const Entry& entry : entries_) by_path[entry.path].push_back(&entry);
    std::map<const Entry*, size_t> priorities;
    for (auto& [path, list] : by_path) {
      std::stable_sort(list.begin(), list.end(), [](const Entry* a, const Entry* b) {
        return a->rank != b->rank ? a->rank > b->rank : a->age < b->age;
      });
      std::set<std::string> taken, places;
      bool contested = false;
      for (const Entry* entry : list) {
        contested = contested || !entry->when.match.empty();
        for (const std::string& listener : entry->listeners) {
          for (const std::string& host : entry->hosts.empty() ? std::vector<std::string>{""} : entry->hosts)
            contested = !places.insert(listener + " " + host).second || contested;
        }
        const std::string key =
            fmt::format("{} {} {} {}", fmt::join(entry->listeners, ","), fmt::join(entry->hosts, ","),
                        fmt::join(entry->when.methods, ","), dump(entry->when.match));
        if (!taken.insert(key).second) priorities[entry] = SIZE_MAX;
      }
      std::erase_if(list, [&](const Entry* entry) { return priorities.count(entry) != 0; });
      for (size_t i = 0; i < list.size() && contested; ++i) priorities[list[i]] = list.size() - 1 - i;
    }
    for (const Entry& entry : entries_) {
      const auto priority = priorities.find(&entry);
      if (priority != priorities.end() && priority->second == SIZE_MAX) continue;  // another takes these requests
      add_routes(into_, {entry.listeners, entry.hosts, entry.path, entry.name}, {{entry.when, entry.answer}},
                 priority == priorities.end() ? 0 : priority->second);
    }
  }
  static std::string dump(const json& value) { return value.dump(-1, ' ', false, json::error_handler_t::replace); }

  Imported& into_;
  GatewayServices services_;
  std::map<std::string, std::map<std::string, std::string>> namespaces_;  // labels
  std::map<std::string, std::string> certificates_;                       // names of ours, by namespace/name
  std::vector<Listener> listeners_;
  std::vector<Entry> entries_;
  bool any_gateway_ = false;
};

}  // namespace

Result<void> import_httproute(std::string_view text, Imported& into) {
  const Result<std::vector<DocumentNode>> objects = objects_of(text);
  if (!objects) return objects.error();
  GatewayImport(into).run(*objects);
  return {};
}

}  // namespace tidegate::cli
