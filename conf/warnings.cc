// SPDX-License-Identifier: Apache-2.0
#include "conf/warnings.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <set>

#include "conf/checks.h"
#include "conf/model/certificate.h"
#include "conf/model/listener.h"
#include "conf/model/policy.h"
#include "conf/model/pool.h"
#include "conf/model/probe.h"
#include "conf/model/route.h"
#include "conf/model/service.h"
#include "conf/model/steer.h"
#include "conf/names.h"
#include "conf/policy/authorise.h"
#include "conf/policy/kind.h"
#include "conf/redirect_circle.h"
#include "conf/unknown_client.h"
#include "core/http1.h"
#include "core/ocsp.h"
#include "core/tls.h"
#include "core/tls_clients.h"

namespace tidegate {
namespace {

std::string day(int64_t epoch_s) { return fmt::format("{:%Y-%m-%d}", fmt::gmtime(static_cast<std::time_t>(epoch_s))); }

// RFC 6125 §6.4.3: a wildcard covers one label. If `host` is a wildcard itself, only the same wildcard covers it.
bool covers(const std::string& name, const std::string& host) {
  if (name == host) return true;
  const size_t dot = host.find('.');
  return name.starts_with("*.") && !host.starts_with("*.") && dot != std::string::npos &&
         std::string_view(name).substr(1) == std::string_view(host).substr(dot);
}

std::optional<CertificateInfo> info_of(const Certificate& certificate) {
  if (!certificate.certificate.bytes || !certificate.key.bytes) return std::nullopt;
  const auto info = inspect_identity({*certificate.certificate.bytes, *certificate.key.bytes});
  return info ? std::optional(*info) : std::nullopt;
}

void warn_of_dates(Checks& warnings, const std::vector<std::optional<CertificateInfo>>& infos, int64_t now_s) {
  for (size_t c = 0; c < infos.size(); ++c) {
    const std::string& name = warnings.model().certificates[c].name;
    if (!infos[c]) continue;
    if (infos[c]->not_after_s < now_s) {
      warnings.refuse({"certificates", c, "certificate_file"},
                      {"expired_certificate",
                       fmt::format("certificate '{}' ended on {}", name, day(infos[c]->not_after_s)),
                       {},
                       {}});
    } else if (infos[c]->not_before_s > now_s) {
      warnings.refuse({"certificates", c, "certificate_file"},
                      {"early_certificate",
                       fmt::format("certificate '{}' begins on {}", name, day(infos[c]->not_before_s)),
                       {},
                       {}});
    }
  }
}

// OCSP of certificates from files. Certificates from an ordering authority are not known here.
void warn_of_staples(Checks& warnings) {
  const Model& model = warnings.model();
  for (size_t c = 0; c < model.certificates.size() && !warnings.full(); ++c) {
    const Certificate& certificate = model.certificates[c];
    if (!certificate.certificate.bytes) continue;
    const auto facts = ocsp_facts(*certificate.certificate.bytes);
    if (!facts) continue;
    if (!certificate.ocsp.enabled && facts->must_staple) {
      warnings.refuse({"certificates", c, "certificate_file"},
                      {"must_staple",
                       fmt::format("clients refuse certificate '{}' without a stapled OCSP answer, and none is fetched",
                                   certificate.name),
                       {},
                       "ocsp: {}"});
    }
    if (!certificate.ocsp.enabled) continue;
    if (!facts->has_issuer) {
      warnings.refuse({"certificates", c, "certificate_file"},
                      {"no_issuer",
                       fmt::format("the file of certificate '{}' does not have its issuer's certificate, without which "
                                   "the authority cannot be asked about it",
                                   certificate.name),
                       {},
                       "add the issuer's certificate to the file"});
    }
    if (facts->responder.empty() && certificate.ocsp.responder.empty()) {
      warnings.refuse(
          {"certificates", c, "ocsp"},
          {"no_responder",
           fmt::format("certificate '{}' names no OCSP responder, so nobody is asked about it", certificate.name),
           {},
           "responder: its URL; many authorities have none any more"});
    }
  }
}

// After a revocation list has ended, no client is admitted, so it must be replaced in time.
void warn_of_ended_lists(Checks& warnings, int64_t now_s) {
  for (size_t l = 0; l < warnings.model().listeners.size(); ++l) {
    const ListenerClients& clients = warnings.model().listeners[l].tls.clients;
    if (!clients.enabled || !clients.ca.bytes || !clients.crl.bytes) continue;
    const auto ends = inspect_client_rules({*clients.ca.bytes, *clients.crl.bytes, false});
    if (!ends || *ends > now_s) continue;
    warnings.refuse({"listeners", l, "tls", "client_certificates", "crl_file"},
                    {"expired_certificate",
                     fmt::format("a revocation list ended on {}: its clients are refused", day(*ends)),
                     {},
                     "write the newest list of the authority"});
  }
}

// Hosts of a listener's routes for which it has no certificate: their clients will refuse the connection.
void warn_of_uncovered_hosts(Checks& warnings, const std::vector<std::optional<CertificateInfo>>& infos) {
  const Model& model = warnings.model();
  std::set<std::pair<size_t, std::string>> told;
  for (size_t r = 0; r < model.routes.size() && !warnings.full(); ++r) {
    for (size_t l = 0; l < model.listeners.size(); ++l) {
      const Listener& listener = model.listeners[l];
      if (!listener.tls.enabled || !serves(model.routes[r], l)) continue;
      for (size_t h = 0; h < model.routes[r].hosts.size(); ++h) {
        const std::string& host = model.routes[r].hosts[h];
        const bool covered =
            std::any_of(listener.tls.certificates.begin(), listener.tls.certificates.end(), [&](uint32_t index) {
              const std::optional<CertificateInfo>& info = infos[index];
              return !info || std::any_of(info->names.begin(), info->names.end(),
                                          [&](const std::string& name) { return covers(name, host); });
            });
        if (covered || !told.emplace(l, host).second) continue;
        warnings.refuse({"routes", r, "hosts", h},
                        {"uncovered_host",
                         fmt::format("no certificate of listener '{}' is for {}", listener.name, in_quotes(host)),
                         {},
                         {}});
      }
    }
  }
}

// Warns of a route that no client can use: its listener denies by default, and the route has no policy that allows a
// client.
void warn_of_denied_routes(Checks& warnings) {
  const Model& model = warnings.model();
  const auto allows = [&](uint32_t p) {
    const Policy& policy = model.policies[p];
    return policy.parts.count("authorise") != 0 && policy.part<AuthorisePolicy>("authorise")->allows();
  };
  const auto any_allows = [&](const std::vector<uint32_t>& policies) {
    return std::any_of(policies.begin(), policies.end(), allows);
  };
  for (uint32_t p = 0; p < model.policies.size(); ++p) {
    if (model.policies[p].everywhere && allows(p)) return;
  }
  for (size_t l = 0; l < model.listeners.size(); ++l) {
    if (!model.listeners[l].default_deny || any_allows(model.listeners[l].policies)) continue;
    for (size_t r = 0; r < model.routes.size() && !warnings.full(); ++r) {
      if (!serves(model.routes[r], l) || any_allows(model.routes[r].policies)) continue;
      warnings.refuse({"routes", r, "name"},
                      {"denied_route",
                       fmt::format("listener '{}' denies by default, and no policy allows requests of route '{}'",
                                   model.listeners[l].name, model.routes[r].name),
                       {},
                       "a policy with authorise: {rules: ...} or {allow: ...}"});
    }
  }
}

void warn_of_circles(Checks& warnings) {
  const Model& model = warnings.model();
  for (size_t r = 0; r < model.routes.size() && !warnings.full(); ++r) {
    if (model.routes[r].redirect() == nullptr) continue;
    for (size_t l = 0; l < model.listeners.size(); ++l) {
      if (!serves(model.routes[r], l) || !leads_back(model, r, l)) continue;
      warnings.refuse({"routes", r, "redirect"},
                      {"endless_redirect",
                       fmt::format("who comes by listener '{}' is sent back to this route", model.listeners[l].name),
                       {},
                       "listeners: names those that it is meant for"});
      break;
    }
  }
}

// Statuses that mean little to a client without a certain field (RFC 9110 §15.5).
struct NeededField {
  uint16_t status;
  std::string_view field;
  const char* why;
};
constexpr NeededField kNeededFields[] = {
    {401, "WWW-Authenticate", "says how to authenticate"},   {405, "Allow", "names the methods that are taken"},
    {407, "Proxy-Authenticate", "says how to authenticate"}, {416, "Content-Range", "says how long the content is"},
    {426, "Upgrade", "names the protocol to speak"},
};

void warn_of_bare_statuses(Checks& warnings) {
  for (size_t r = 0; r < warnings.model().routes.size() && !warnings.full(); ++r) {
    const Route& route = warnings.model().routes[r];
    const RouteAnswer* answer = route.answer();
    if (answer == nullptr) continue;
    for (const NeededField& needed : kNeededFields) {
      if (needed.status != answer->status) continue;
      const bool set = std::any_of(route.response_headers.begin(), route.response_headers.end(), [&](const auto& edit) {
        return !edit.second.empty() && http1::equals_ignore_case(edit.first, needed.field);
      });
      if (set) continue;
      warnings.refuse({"routes", r, "status"},
                      {"bare_status",
                       fmt::format("a {} without {}, which {}", answer->status, needed.field, needed.why),
                       {},
                       "response_headers can set it"});
    }
  }
}

// Why an answer is never thrown away for another backend's. Empty: it may be.
std::string why_nothing_is_tried_again(const Model& model, const Route& route) {
  if (route.pool() == kNone) return fmt::format("route '{}' asks no backend", route.name);
  const Pool& pool = model.pools[route.pool()];
  if (pool.retry_attempts == 0) return fmt::format("retry_attempts of pool '{}' is 0", pool.name);
  if (pool.retry_budget <= 0) return fmt::format("retry_budget of pool '{}' is 0", pool.name);
  // A name may lead to several servers.
  const bool one = pool.backends.size() == 1 && pool.backends[0].host.empty() && pool.backends[0].srv.empty();
  return one ? fmt::format("pool '{}' has no other backend", pool.name) : std::string();
}

void warn_of_useless_retries(Checks& warnings) {
  const Model& model = warnings.model();
  for (size_t r = 0; r < model.routes.size() && !warnings.full(); ++r) {
    const Route& route = model.routes[r];
    if (const std::string why = why_nothing_is_tried_again(model, route);
        !why.empty() && !route.retry_statuses.empty()) {
      warnings.refuse({"routes", r, "retry_statuses"},
                      {"without_effect", fmt::format("no answer is tried again: {}", why), {}, {}});
    }
    if (route.total_timeout_ms != 0 && route.try_timeout_ms > route.total_timeout_ms) {
      warnings.refuse({"routes", r, "try_timeout"},
                      {"without_effect",
                       fmt::format("one try may take {} ms, longer than all tries together with {} ms",
                                   route.try_timeout_ms, route.total_timeout_ms),
                       "less than total_timeout",
                       {}});
    }
  }
}

void warn_of_slow_probes(Checks& warnings) {
  for (size_t p = 0; p < warnings.model().probes.size() && !warnings.full(); ++p) {
    const Probe& probe = warnings.model().probes[p];
    if (probe.timeout_ms <= probe.interval_ms || !warnings.written({"probes", p, "timeout"})) continue;
    warnings.refuse({"probes", p, "timeout"},
                    {"slow_probe",
                     fmt::format("probe '{}' may take {} ms, longer than its interval of {} ms", probe.name,
                                 probe.timeout_ms, probe.interval_ms),
                     {},
                     "a probe that is under way puts off the next one"});
  }
}

bool has_port(const Model& model, uint16_t port, bool tls) {
  return std::any_of(model.listeners.begin(), model.listeners.end(), [&](const Listener& listener) {
    return listener.tls.enabled == tls && std::any_of(listener.bind.begin(), listener.bind.end(),
                                                      [&](const Endpoint& bind) { return bind.port == port; });
  });
}

// The authority connects to a fixed port. If something before the proxy translates ports, that is not known here.
void warn_of_ports_of_authorities(Checks& warnings) {
  const Model& model = warnings.model();
  const bool has_http = has_port(model, 80, false), has_https = has_port(model, 443, true);
  for (size_t c = 0; c < model.certificates.size() && !warnings.full(); ++c) {
    const Certificate& certificate = model.certificates[c];
    if (!certificate.is_ordered()) continue;
    const AcmeChallenge challenge = certificate.order.challenge;
    if (challenge == AcmeChallenge::http01 && !has_http) {
      warnings.refuse({"certificates", c, "acme"},
                      {"no_port_for_authority",
                       fmt::format("the authority asks for the proof of '{}' at port 80, where no listener without TLS "
                                   "is",
                                   certificate.name),
                       {},
                       "challenge: tls-alpn-01 is shown at port 443, dns-01 by the name servers"});
    } else if (challenge == AcmeChallenge::tls_alpn01 && !has_https) {
      warnings.refuse(
          {"certificates", c, "acme"},
          {"no_port_for_authority",
           fmt::format("the authority asks for the proof of '{}' at port 443, where no listener with TLS is",
                       certificate.name),
           {},
           "challenge: http-01 is shown at port 80, dns-01 by the name servers"});
    }
  }
}

template <class Named>
void warn_of_unused(Checks& warnings, std::string_view list, const char* noun, const Elements<Named>& elements,
                    const std::set<uint32_t>& used) {
  for (size_t i = 0; i < elements.size() && !warnings.full(); ++i) {
    if (used.count(static_cast<uint32_t>(i)) != 0) continue;
    warnings.refuse({list, i, "name"}, {"unused", fmt::format("nothing uses {} '{}'", noun, elements[i].name), {}, {}});
  }
}

void warn_of_all_unused(Checks& warnings) {
  const Model& model = warnings.model();
  std::set<uint32_t> pools, probes, certificates, policies, acls;
  for (const Route& route : model.routes) {
    pools.insert(route.pool());
    policies.insert(route.policies.begin(), route.policies.end());
  }
  for (const Service& service : model.services) {
    pools.insert(service.pool);
    acls.insert(service.allow.begin(), service.allow.end());
    acls.insert(service.deny.begin(), service.deny.end());
  }
  for (const Policy& policy : model.policies) {
    for (const PolicyKind& kind : policy_kinds()) {
      if (!kind.pools_of || policy.parts.count(kind.key) == 0) continue;
      for (const uint32_t pool : kind.pools_of(policy)) pools.insert(pool);
    }
  }
  for (const Steer& steer : model.steers) {
    for (const SteerTarget& target : steer.targets) pools.insert(target.pool());
  }
  for (const Pool& pool : model.pools) probes.insert(pool.probe);
  for (const Listener& listener : model.listeners) {
    certificates.insert(listener.tls.certificates.begin(), listener.tls.certificates.end());
    policies.insert(listener.policies.begin(), listener.policies.end());
  }
  for (uint32_t p = 0; p < model.policies.size(); ++p) {
    if (model.policies[p].everywhere) policies.insert(p);
  }
  warn_of_unused(warnings, "pools", "pool", model.pools, pools);
  warn_of_unused(warnings, "acls", "list", model.acls, acls);
  warn_of_unused(warnings, "probes", "probe", model.probes, probes);
  warn_of_unused(warnings, "certificates", "certificate", model.certificates, certificates);
  warn_of_unused(warnings, "policies", "policy", model.policies, policies);
}

}  // namespace

std::vector<Fault> find_warnings(const Document& document, const Model& model, int64_t now_s) {
  std::vector<Fault> found;
  FaultList list(found, document.file_name());
  list.set_text(document.text());
  Model copy = model;
  Checks warnings(document.root(), copy, list);
  std::vector<std::optional<CertificateInfo>> infos;
  for (const Certificate& certificate : model.certificates) infos.push_back(info_of(certificate));
  warn_of_dates(warnings, infos, now_s);
  warn_of_staples(warnings);
  warn_of_ended_lists(warnings, now_s);
  warn_of_uncovered_hosts(warnings, infos);
  warn_of_denied_routes(warnings);
  warn_of_unknown_clients(warnings);
  warn_of_circles(warnings);
  warn_of_bare_statuses(warnings);
  warn_of_useless_retries(warnings);
  warn_of_slow_probes(warnings);
  warn_of_ports_of_authorities(warnings);
  warn_of_all_unused(warnings);
  document.place_in_sources(found);
  return found;
}

}  // namespace tidegate
