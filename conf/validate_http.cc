// SPDX-License-Identifier: Apache-2.0
// Cross checks of certificates, listeners and single routes.
#include <fmt/format.h>

#include <algorithm>
#include <initializer_list>
#include <map>
#include <string>
#include <unordered_map>

#include "conf/checks.h"
#include "conf/model.h"
#include "conf/model/certificate.h"
#include "conf/model/listener.h"
#include "conf/model/pool.h"
#include "conf/model/probe.h"
#include "conf/model/route.h"
#include "conf/names.h"
#include "conf/route_checks.h"
#include "conf/route_pattern.h"
#include "conf/text.h"
#include "core/http1.h"
#include "core/mutex.h"
#include "core/tls.h"
#include "core/tls_clients.h"

namespace tidegate {
namespace {

// The results of earlier checks of certificates and authorities, by content. To read a certificate takes a fraction of
// a millisecond, and every version has all of them again. Any thread.
class KnownVerdicts {
 public:
  // Why the content is unusable, or an empty text. Calls `judge` for content that it does not know.
  template <class Judge>
  std::string of(const std::string& content, Judge&& judge) {
    {
      const MutexLock lock(mutex_);
      if (const auto known = verdicts_.find(content); known != verdicts_.end()) return known->second;
    }
    std::string verdict = judge();
    const MutexLock lock(mutex_);
    if (verdicts_.size() >= kMost) verdicts_.clear();
    verdicts_.emplace(content, verdict);
    return verdict;
  }

 private:
  static constexpr size_t kMost = 4'096;  // a site has hundreds
  Mutex mutex_;
  std::unordered_map<std::string, std::string> verdicts_ TIDEGATE_GUARDED_BY(mutex_);  // by the hashes of the contents
};

KnownVerdicts& known_verdicts() {
  static KnownVerdicts verdicts;
  return verdicts;
}

void check_certificates(Checks& checks) {
  for (size_t c = 0; c < checks.model().certificates.size(); ++c) {
    const Certificate& certificate = checks.model().certificates[c];
    if (certificate.certificate.bytes == nullptr || certificate.key.bytes == nullptr) continue;  // reported already
    const std::string content = "identity " + certificate.certificate.hash + " " + certificate.key.hash;
    const std::string unusable = known_verdicts().of(content, [&] {
      const auto info = inspect_identity({*certificate.certificate.bytes, *certificate.key.bytes});
      return info ? std::string() : info.error().message;
    });
    if (unusable.empty()) continue;
    checks.refuse({"certificates", c, "certificate_file"},
                  {"unusable_certificate",
                   fmt::format("certificate '{}' cannot be used: {}", certificate.name, unusable),
                   {},
                   {}});
  }
}

// The keys of a pool or probe about the certificates that it checks.
struct BackendTls {
  std::string_view list;
  size_t index;
  bool speaks_tls, verifies;
  const Blob& ca;
  const char* owner;       // "pool"
  const char* how_to_tls;  // the key that makes it use TLS
};

// Checks that the keys have an effect, and that the authorities can be read.
void check_one_backend_tls(Checks& checks, const BackendTls& of) {
  const auto& [list, index, speaks_tls, verifies, ca, owner, how_to_tls] = of;
  if (!speaks_tls && verifies && checks.written({list, index, "tls_verify"})) {
    checks.refuse({list, index, "tls_verify"},
                  {"without_effect", fmt::format("tls_verify in a {} that does not speak TLS", owner), {}, how_to_tls});
  }
  if (ca.bytes == nullptr) return;
  if (!speaks_tls || !verifies) {
    checks.refuse({list, index, "tls_ca_file"},
                  {"without_effect",
                   speaks_tls ? "tls_ca_file with tls_verify: false checks nothing"
                              : fmt::format("tls_ca_file in a {} that does not speak TLS checks nothing", owner),
                   {},
                   speaks_tls ? "remove tls_verify: false" : how_to_tls});
    return;
  }
  const std::string unusable = known_verdicts().of("authorities " + ca.hash, [&pem = *of.ca.bytes]() -> std::string {
    if (pem.empty()) return "it is empty";
    const auto context = TlsContext::client({{}, true, pem});
    return context ? std::string() : context.error().message;
  });
  if (unusable.empty()) return;
  checks.refuse({list, index, "tls_ca_file"},
                {"unusable_certificate",
                 fmt::format("tls_ca_file {} cannot be used: {}", in_quotes(ca.name), unusable),
                 "certificates in PEM",
                 {}});
}

// Checks that the authorities and revocation lists for a listener's clients can be used.
void check_client_certificates(Checks& checks) {
  for (size_t l = 0; l < checks.model().listeners.size() && !checks.full(); ++l) {
    const ListenerClients& clients = checks.model().listeners[l].tls.clients;
    if (!clients.enabled || clients.ca.bytes == nullptr) continue;
    const bool has_lists = !clients.crl.name.empty();
    if (has_lists && clients.crl.bytes == nullptr) continue;
    const std::string unusable = known_verdicts().of("clients " + clients.ca.hash + " " + clients.crl.hash, [&] {
      if (has_lists && clients.crl.bytes->empty()) return std::string("revocation list: it is empty");
      const auto ends = inspect_client_rules({*clients.ca.bytes, has_lists ? *clients.crl.bytes : "", false});
      return ends ? std::string() : ends.error().message;
    });
    if (unusable.empty()) continue;
    const bool of_lists = unusable.starts_with("revocation list");
    checks.refuse({"listeners", l, "tls", "client_certificates", of_lists ? "crl_file" : "ca_file"},
                  {"unusable_certificate",
                   fmt::format("{} {} cannot be used: {}", of_lists ? "crl_file" : "ca_file",
                               in_quotes(of_lists ? clients.crl.name : clients.ca.name), unusable),
                   of_lists ? "a list of each authority of ca_file, in PEM" : "certificates in PEM",
                   {}});
  }
}

void check_backend_tls(Checks& checks) {
  const Model& model = checks.model();
  for (size_t p = 0; p < model.pools.size() && !checks.full(); ++p) {
    const Pool& pool = model.pools[p];
    check_one_backend_tls(checks, {"pools", p, pool.tls, pool.tls_verify, pool.tls_ca, "pool", "add tls: true"});
    if (pool.protocol == BackendProtocol::automatic && !pool.tls) {
      checks.refuse({"pools", p, "protocol"},
                    {"without_effect", "protocol: auto in a pool that does not speak TLS: only TLS can choose",
                     "h1 or h2", "add tls: true, or write protocol: h2 if the backends speak HTTP/2 without TLS"});
    }
  }
  for (size_t p = 0; p < model.probes.size() && !checks.full(); ++p) {
    const Probe& probe = model.probes[p];
    const bool speaks_tls =
        probe.type == ProbeType::https || probe.type == ProbeType::tls || (probe.type == ProbeType::grpc && probe.tls);
    check_one_backend_tls(
        checks, {"probes", p, speaks_tls, probe.tls_verify, probe.tls_ca, "probe", "its type would be https or tls"});
  }
}

// A listener without a site is on every site. So it can collide with the listeners of every site.
void check_listeners_collide(Checks& checks) {
  std::map<Endpoint, std::vector<size_t>> bound;
  const Elements<Listener>& listeners = checks.model().listeners;
  for (size_t l = 0; l < listeners.size() && !checks.full(); ++l) {
    if (!checks.sound({"listeners", l, "site"})) continue;
    for (size_t b = 0; b < listeners[l].bind.size(); ++b) {
      if (!checks.sound({"listeners", l, "bind", b})) continue;
      std::vector<size_t>& others = bound[listeners[l].bind[b]];
      const auto meets = [&](size_t other) {
        return other != l && (listeners[other].site == kNone || listeners[l].site == kNone ||
                              listeners[other].site == listeners[l].site);
      };
      const auto other = std::find_if(others.begin(), others.end(), meets);
      if (other != others.end()) {
        checks.refuse({"listeners", l, "bind", b}, {"colliding_listeners",
                                                    fmt::format("{} is bound twice", listeners[l].bind[b].to_string()),
                                                    {},
                                                    fmt::format("listener '{}' has it{}", listeners[*other].name,
                                                                checks.line_of({"listeners", *other}))});
      }
      others.push_back(l);
    }
  }
}

// Where a redirect's location names its host. Nothing if it leads to the same host, or to no web server.
std::optional<std::string_view> redirect_authority(std::string_view location) {
  for (const std::string_view scheme : {"https:", "http:"}) {
    if (location.starts_with(scheme)) {
      location.remove_prefix(scheme.size());
      return location.starts_with("//") ? location.substr(2) : std::string_view();
    }
  }
  if (!location.starts_with("//")) return std::nullopt;
  return location.substr(2);
}

// The name in the braces at the beginning of the text; empty if there are none.
std::string_view leading_variable(std::string_view text) {
  return text.starts_with('{') ? text.substr(1, text.find('}') - 1) : std::string_view();
}

bool is_one_of(std::string_view name, std::initializer_list<std::string_view> names) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

// True if a part of the path decides the host of a redirect. {path}, {rest} and {query} cannot do that after {host}:
// they begin with a character that ends a host.
bool client_chooses(std::string_view host) {
  const std::string_view first = leading_variable(host);
  if (first.empty()) return false;
  const std::string_view behind = host.substr(first.size() + 2);
  const std::string_view second = leading_variable(behind);
  if (is_one_of(first, {"host", "authority"})) return !second.empty() && !is_one_of(second, {"path", "rest", "query"});
  return behind.empty() || behind[0] == ':' || !second.empty();
}

// The client writes the path. So a redirect whose host is a part of the path leads wherever somebody wants.
void check_redirect_host(Checks& checks, size_t r) {
  const std::optional<std::string_view> authority = redirect_authority(checks.model().routes[r].redirect()->location);
  if (!authority) return;
  const std::string_view host = authority->substr(0, authority->find_first_of("/?#"));
  if (!host.empty() && !client_chooses(host)) return;
  checks.refuse({"routes", r, "redirect"},
                {"bad_value",
                 host.empty() ? std::string("redirect names a scheme and no host")
                              : fmt::format("the client chooses the host of this redirect: it is {}", host),
                 "a host, as in https://www.example.com{path} or https://{authority}{path}",
                 {}});
}

// The replacements in a redirect: {host}, {authority}, {path}, {query}, {rest} and the parameters of the route's path.
void check_redirect_parameters(Checks& checks, size_t r) {
  const Route& route = checks.model().routes[r];
  std::vector<std::string> known = {"host", "authority", "path", "query"};
  if (const auto path = PathPattern::parse(route.path)) {
    for (const PathSegment& segment : path->segments) {
      if (segment.kind == PathSegment::Kind::parameter) known.push_back(segment.text);
    }
  }
  if (route.path.ends_with("/*")) known.push_back("rest");
  const std::vector<std::string_view> names(known.begin(), known.end());
  const std::string_view text = route.redirect()->location;
  for (size_t open = text.find('{'); open != std::string_view::npos; open = text.find('{', open + 1)) {
    const size_t close = text.find('}', open);
    if (close == std::string_view::npos) {
      checks.refuse({"routes", r, "redirect"}, {"bad_value", "a '{' in redirect is not closed", {}, {}});
      return;
    }
    const std::string_view name = text.substr(open + 1, close - open - 1);
    if (std::find(names.begin(), names.end(), name) != names.end()) continue;
    checks.refuse({"routes", r, "redirect"},
                  {"no_such_name", fmt::format("redirect names {{{}}}, which the path does not have", name),
                   one_of(names), did_you_mean(name, names)});
  }
}

// Finds paths that no request can have: listeners that merge slashes match no path with two slashes in a row.
void check_route_slashes(Checks& checks, size_t r) {
  const Model& model = checks.model();
  const Route& route = model.routes[r];
  if (route.path.find("//") == std::string::npos || !checks.sound({"routes", r, "listeners"})) return;
  const auto keeps = [](const Listener& listener) { return !listener.merge_slashes; };
  const bool reached = route.listeners.empty() ? std::any_of(model.listeners.begin(), model.listeners.end(), keeps)
                                               : std::any_of(route.listeners.begin(), route.listeners.end(),
                                                             [&](uint32_t l) { return keeps(model.listeners[l]); });
  if (reached) return;
  checks.refuse(
      {"routes", r, "path"},
      {"without_effect", fmt::format("path {} matches nothing: slashes are merged first", in_quotes(route.path)),
       "a path with single slashes", "or a listener of its own with merge_slashes: false"});
}

// A route has exactly one of: a pool, a redirect (its status says which kind), a fixed status (with or without a body).
void check_route_answer(Checks& checks, size_t r) {
  const Route& route = checks.model().routes[r];
  const bool pool = checks.written({"routes", r, "pool"});
  const bool redirect = checks.written({"routes", r, "redirect"});
  const bool status = checks.written({"routes", r, "status"});
  if (!pool && !redirect && !status) {
    checks.refuse({"routes", r}, {"exactly_one",
                                  fmt::format("route '{}' does not say what to answer", route.name),
                                  "one of pool, redirect and status",
                                  {}});
    return;
  }
  if (pool && (redirect || status)) {
    checks.refuse({"routes", r, redirect ? "redirect" : "status"},
                  {"exactly_one",
                   fmt::format("route '{}' has a pool and a {}", route.name, redirect ? "redirect" : "status"),
                   "one of pool, redirect and status",
                   {}});
    return;
  }
  if (checks.written({"routes", r, "body"}) && (pool || redirect)) {
    checks.refuse({"routes", r, "body"}, {"exactly_one", "body belongs to a fixed status alone", {}, "remove it"});
  }
  if (!redirect) return;
  constexpr uint16_t kRedirects[] = {301, 302, 303, 307, 308};
  if (std::find(std::begin(kRedirects), std::end(kRedirects), route.redirect()->status) == std::end(kRedirects)) {
    checks.refuse({"routes", r, "status"}, {"out_of_range",
                                            fmt::format("status of a redirect is {}", route.redirect()->status),
                                            "301, 302, 303, 307 or 308",
                                            {}});
  }
  check_redirect_parameters(checks, r);
  check_redirect_host(checks, r);
}

using Edits = std::vector<std::pair<std::string, std::string>>;

// Checks the names in a map of edits: fields that may be set, each of them once.
void check_edits(Checks& checks, size_t r, std::string_view key, const Edits& edits, bool to_backend) {
  const Route& route = checks.model().routes[r];
  std::map<std::string, std::string_view> met;  // by lower-case name
  for (const auto& [name, value] : edits) {
    const std::string lower = lower_case(name);
    const bool own_upgrade =
        !to_backend && lower == "upgrade" && route.answer() != nullptr && route.answer()->status == 426;
    if (is_framing_field(field_name_as_read(name)) && !own_upgrade) {
      checks.refuse({"routes", r, key, std::string_view(name)},
                    {"bad_value",
                     fmt::format("{} cannot be edited: the proxy frames each message itself", in_quotes(name)),
                     "a field of the message's content",
                     {}});
    } else if (lower == "host" && (!to_backend || value.empty())) {
      checks.refuse({"routes", r, key, std::string_view(name)},
                    {"bad_value",
                     to_backend ? "Host cannot be removed: every request needs one" : "Host is a field of requests",
                     {},
                     {}});
    } else if (lower == "host" && !http1::is_authority(value)) {
      checks.refuse({"routes", r, key, std::string_view(name)}, {"bad_value",
                                                                 fmt::format("{} is no host", in_quotes(value)),
                                                                 "a name or an address, with a port or not",
                                                                 {}});
    }
    if (const auto [other, first] = met.emplace(lower, name); !first) {
      checks.refuse({"routes", r, key, std::string_view(name)},
                    {"duplicate_name",
                     fmt::format("{} and {} are one field", in_quotes(other->second), in_quotes(name)),
                     {},
                     {}});
    }
  }
}

// gRPC needs HTTP/2 to the backend: its status is a trailer of streams that run both ways.
void check_grpc_web(Checks& checks, size_t r) {
  const Route& route = checks.model().routes[r];
  if (!route.grpc_web) return;
  if (route.pool() == kNone) {
    checks.refuse({"routes", r, "grpc_web"}, {"without_effect", "grpc_web in a route without a pool", {}, {}});
  } else if (checks.model().pools[route.pool()].protocol == BackendProtocol::h1 &&
             checks.sound({"pools", route.pool()})) {
    checks.refuse({"routes", r, "grpc_web"}, {"without_effect",
                                              fmt::format("grpc_web before pool '{}', which speaks HTTP/1.1",
                                                          checks.model().pools[route.pool()].name),
                                              "a pool with protocol: h2 or auto",
                                              {}});
  }
}

// Only requests to a pool wait in a queue.
void check_queue_priority(Checks& checks, size_t r) {
  if (checks.model().routes[r].pool() != kNone || !checks.written({"routes", r, "queue_priority"})) return;
  checks.refuse({"routes", r, "queue_priority"},
                {"without_effect", "queue_priority in a route without a pool", {}, {}});
}

// Each label of a route must be on some backend of its pool.
void check_route_labels(Checks& checks, size_t r) {
  const Model& model = checks.model();
  const Route& route = model.routes[r];
  if (route.labels.empty()) {
    if (checks.written({"routes", r, "labels_required"})) {
      checks.refuse({"routes", r, "labels_required"},
                    {"without_effect", "labels_required in a route without labels", {}, {}});
    }
    return;
  }
  if (route.pool() == kNone) {
    checks.refuse({"routes", r, "labels"}, {"without_effect", "labels in a route without a pool", {}, {}});
    return;
  }
  if (!checks.sound({"pools", route.pool()})) return;
  const Pool& pool = model.pools[route.pool()];
  const bool any = std::any_of(pool.backends.begin(), pool.backends.end(), [&](const Backend& backend) {
    return std::all_of(route.labels.begin(), route.labels.end(), [&](const std::string& label) {
      return std::find(backend.labels.begin(), backend.labels.end(), label) != backend.labels.end();
    });
  });
  if (any) return;
  checks.refuse({"routes", r, "labels"},
                {"no_such_name",
                 fmt::format("no backend of pool '{}' has {}", pool.name,
                             route.labels.size() == 1 ? in_quotes(route.labels[0]) : "all of these labels"),
                 "labels that a backend of the pool has",
                 {}});
}

// Finds the routes that were judged already: neither they have changed nor what their checks look at besides.
class JudgedRoutes {
 public:
  JudgedRoutes(const Model& model, const Model* before) : model_(model), before_(before) {
    const auto same = [](const Listener& a, const Listener& b) { return a.merge_slashes == b.merge_slashes; };
    if (before != nullptr && !std::equal(model.listeners.begin(), model.listeners.end(), before->listeners.begin(),
                                         before->listeners.end(), same)) {
      before_ = nullptr;
    }
  }
  bool contains(size_t r) const {
    if (before_ == nullptr || !model_.routes.shares(r, before_->routes)) return false;
    const uint32_t pool = model_.routes[r].pool();
    return pool == kNone || model_.pools.shares(pool, before_->pools);
  }

 private:
  const Model& model_;
  const Model* before_;
};

}  // namespace

bool is_framing_field(std::string_view lower_name) {
  constexpr std::string_view kNames[] = {"connection",        "content-length",   "expect", "http2-settings",
                                         "keep-alive",        "proxy-connection", "te",     "trailer",
                                         "transfer-encoding", "upgrade"};
  return std::find(std::begin(kNames), std::end(kNames), lower_name) != std::end(kNames);
}

void check_http(Checks& checks, const Model* before) {
  check_certificates(checks);
  check_client_certificates(checks);
  check_backend_tls(checks);
  check_listeners_collide(checks);
  const JudgedRoutes judged(checks.model(), before);
  for (size_t r = 0; r < checks.model().routes.size() && !checks.full(); ++r) {
    if (judged.contains(r) || !checks.sound({"routes", r})) continue;
    check_route_slashes(checks, r);
    check_route_answer(checks, r);
    check_route_labels(checks, r);
    check_grpc_web(checks, r);
    check_queue_priority(checks, r);
    check_route_conditions(checks, r);
    check_edits(checks, r, "request_headers", checks.model().routes[r].request_headers, true);
    check_edits(checks, r, "response_headers", checks.model().routes[r].response_headers, false);
  }
}

}  // namespace tidegate
