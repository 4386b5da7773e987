// SPDX-License-Identifier: Apache-2.0
// Cross checks of probes: keys that belong to another type, and what a type cannot do without.
#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "conf/byte_text.h"
#include "conf/checks.h"
#include "conf/limits.h"
#include "conf/model.h"
#include "conf/model/node.h"
#include "conf/model/pool.h"
#include "conf/model/probe.h"
#include "conf/model/service.h"
#include "conf/model/site.h"
#include "conf/names.h"
#include "conf/probe_bounds.h"
#include "conf/scalar.h"

namespace tidegate {
namespace {

struct KeyOfTypes {
  const char* key;
  std::vector<ProbeType> types;
  const char* types_text;
};

const KeyOfTypes kKeys[] = {
    {"path", {ProbeType::http, ProbeType::https}, "http or https"},
    {"host", {ProbeType::http, ProbeType::https, ProbeType::tls, ProbeType::grpc}, "http, https, tls or grpc"},
    {"expect_status", {ProbeType::http, ProbeType::https}, "http or https"},
    {"send", {ProbeType::tcp, ProbeType::udp}, "tcp or udp"},
    {"expect", {ProbeType::tcp, ProbeType::udp}, "tcp or udp"},
    {"dns_name", {ProbeType::dns}, "dns"},
    {"dns_type", {ProbeType::dns}, "dns"},
    {"dns_rcode", {ProbeType::dns}, "dns"},
    {"tls_days", {ProbeType::tls}, "tls"},
    {"tls", {ProbeType::grpc}, "grpc"},
    {"grpc_service", {ProbeType::grpc}, "grpc"},
    {"command", {ProbeType::command}, "command"},
};

// These keys are older than probe types. A document in force may have them with a type that does not use them.
bool is_older(std::string_view key) { return key == "path" || key == "host" || key == "expect_status"; }

void check_keys(Checks& checks, size_t p) {
  const Probe& probe = checks.model().probes[p];
  const bool is_new_type =
      probe.type != ProbeType::tcp && probe.type != ProbeType::http && probe.type != ProbeType::https;
  for (const KeyOfTypes& row : kKeys) {
    if (!checks.written({"probes", p, row.key})) continue;
    if (is_older(row.key) && !is_new_type) continue;
    bool fits = false;
    for (const ProbeType type : row.types) fits |= type == probe.type;
    if (fits) continue;
    checks.refuse({"probes", p, row.key}, {"without_effect",
                                           fmt::format("{} in a probe of another type", row.key),
                                           fmt::format("a probe of type {}", row.types_text),
                                           {}});
  }
}

void check_bytes(Checks& checks, size_t p, const char* key, const std::string& text) {
  if (const Result<std::string> bytes = bytes_of_text(text); !bytes) {
    checks.refuse({"probes", p, key},
                  {"bad_value",
                   fmt::format("{} of probe '{}': {}", key, checks.model().probes[p].name, bytes.error().message),
                   "text with \\r, \\n, \\t, \\0, \\\\ or \\xHH",
                   {}});
  }
}

// A file name without a path.
bool is_program_name(const std::string& name) {
  return !name.empty() && name.front() != '.' && name.front() != '-' && name.find('/') == std::string::npos;
}

void check_command(Checks& checks, size_t p) {
  const Probe& probe = checks.model().probes[p];
  if (probe.command.empty()) {
    checks.refuse({"probes", p, "type"},
                  {"missing_command", fmt::format("probe '{}' of type command has no command", probe.name),
                   "the name of a program, and its arguments", "add command: [check_it, \"{address}\"]"});
  } else if (!is_program_name(probe.command.front())) {
    checks.refuse({"probes", p, "command"},
                  {"bad_value",
                   fmt::format("{} is not the name of a program", in_quotes(probe.command.front())),
                   "the name of a file in the directory of --probe-commands, without a path",
                   {}});
  } else if (probe.command.size() > kMaxProbeCommandItems) {
    checks.refuse({"probes", p, "command"}, {"out_of_range",
                                             fmt::format("the command has {} items", probe.command.size()),
                                             fmt::format("at most {}", kMaxProbeCommandItems),
                                             {}});
  }
}

bool probes_protocol(const Probe& probe, const Service& service) {
  return service.protocol == (probe.type == ProbeType::tcp ? Protocol::tcp : Protocol::udp);
}

bool has_type_for_vips(const Probe& probe) {
  return probe.type == ProbeType::tcp || probe.type == ProbeType::udp || probe.type == ProbeType::dns;
}

// Refuses what a probe through the forwarder does not support.
void check_via_vip(Checks& checks, size_t p) {
  const Probe& probe = checks.model().probes[p];
  if (!probe.via_vip) return;
  if (!has_type_for_vips(probe)) {
    checks.refuse(
        {"probes", p, "via"},
        {"not_via_vip", fmt::format("the forwarder cannot send probe '{}', which is of another type", probe.name),
         "type tcp, udp or dns", "a second pool with the same backends can have another probe"});
  }
  for (const char* key : {"send", "expect"}) {
    if (probe.type != ProbeType::tcp || !checks.written({"probes", p, key})) continue;
    checks.refuse({"probes", p, key}, {"without_effect",
                                       fmt::format("{} in a probe of type tcp with via: vip", key),
                                       "none: the forwarder sees whether the connection opens, and no more",
                                       {}});
  }
}

bool has_forwarder(const Model& model, uint32_t site) {
  return std::any_of(model.nodes.begin(), model.nodes.end(),
                     [site](const Node& node) { return node.l4.enabled && node.site == site; });
}

// A pool whose probe goes through the forwarder needs services, because they say what to probe and which forwarder can
// do it.
void check_pool_via_vip(Checks& checks, size_t p) {
  const Model& model = checks.model();
  const Pool& pool = model.pools[p];
  if (!checks.sound({"pools", p}) || pool.probe == kNone || !model.probes[pool.probe].via_vip) return;
  const Probe& probe = model.probes[pool.probe];
  if (!has_type_for_vips(probe)) return;  // refused at the probe already
  const auto refuse = [&](std::string what, std::string expected) {
    checks.refuse({"pools", p, "probe"}, {"not_via_vip", std::move(what), std::move(expected), {}});
  };
  size_t targets = 0;
  uint32_t site = kNone;
  for (const Service& service : model.services) {
    if (service.pool != p || service.vip == kNone) continue;
    const Vip& vip = model.vips[service.vip];
    if (site != kNone && vip.site != site) {
      return refuse(fmt::format("pool '{}' has services of several sites", pool.name), "services of one site");
    }
    site = vip.site;
    if (!has_forwarder(model, site)) {
      return refuse(
          fmt::format("the site of vip '{}' has no forwarder that could send probe '{}'", vip.name, probe.name),
          "a node of that site with l4");
    }
    if (probe.port != 0 || probes_protocol(probe, service)) targets += vip.addresses.size();
  }
  if (targets == 0) {
    refuse(fmt::format("no service of {} forwards to pool '{}', so probe '{}' has nothing to ask for",
                       probe.type == ProbeType::tcp ? "tcp" : "udp", pool.name, probe.name),
           "a service of that protocol, or a port");
  } else if (targets > kMaxVipProbeTargets) {
    refuse(fmt::format("pool '{}' has {} addresses and ports to probe", pool.name, targets),
           fmt::format("at most {}", kMaxVipProbeTargets));
  }
}

}  // namespace

void check_probes(Checks& checks) {
  for (size_t p = 0; p < checks.model().pools.size() && !checks.full(); ++p) check_pool_via_vip(checks, p);
  for (size_t p = 0; p < checks.model().probes.size() && !checks.full(); ++p) {
    if (!checks.sound({"probes", p})) continue;
    const Probe& probe = checks.model().probes[p];
    check_keys(checks, p);
    check_bytes(checks, p, "send", probe.send);
    check_bytes(checks, p, "expect", probe.expect);
    if (probe.type == ProbeType::command) check_command(checks, p);
    check_via_vip(checks, p);
    if (probe.type == ProbeType::udp && probe.send.empty()) {
      checks.refuse(
          {"probes", p, "type"},
          {"missing_send", fmt::format("probe '{}' of type udp sends nothing, so nothing answers", probe.name),
           "a text that the backend answers", "add send"});
    }
    if (probe.type == ProbeType::dns && probe.dns_name != "." && !canonical_domain(probe.dns_name)) {
      checks.refuse({"probes", p, "dns_name"}, {"malformed_name",
                                                fmt::format("{} is not a domain name", in_quotes(probe.dns_name)),
                                                "a name as example.com",
                                                {}});
    }
  }
}

}  // namespace tidegate
