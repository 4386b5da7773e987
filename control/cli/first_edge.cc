// SPDX-License-Identifier: Apache-2.0
#include "control/cli/first_edge.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "conf/names.h"
#include "core/assert.h"

namespace tidegate::cli {
namespace {

constexpr size_t kMaxBackends = 1'000;
constexpr uint16_t kHttp = 80;

bool is_any(const IpAddress& address) { return address == IpAddress{address.family, {}}; }

// JSON's strings are also YAML's double-quoted strings. Text that looks like an insertion is escaped.
std::string yaml_text(std::string_view text) {
  std::string out = nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  for (size_t at = out.find("${"); at != std::string::npos; at = out.find("${", at + 3)) out.insert(at, "$");
  return out;
}

std::string list_of(const std::vector<std::string>& words) {
  std::string out;
  for (const std::string& word : words) out += (out.empty() ? "" : ", ") + yaml_text(word);
  return "[" + out + "]";
}

std::string pool_of(const FirstEdge& edge) {
  std::string out =
      "probes:\n"
      "  - {name: alive, type: tcp}  # better: {name: alive, type: http, path: /healthz}\n\n"
      "pools:\n"
      "  - name: app\n"
      "    probe: alive\n"
      "    backends:\n";
  size_t number = 0;
  for (const Endpoint& backend : edge.backends) {
    out += fmt::format("      - {{name: app{}, addresses: [{}], port: {}}}\n", ++number,
                       yaml_text(backend.address.to_string()), backend.port);
  }
  return out;
}

std::string listeners_of(const FirstEdge& edge) {
  const Endpoint at = edge.listens_at();
  if (edge.certificate.empty())
    return fmt::format("listeners:\n  - {{name: http, bind: [{}]}}\n", yaml_text(at.to_string()));
  std::string out = fmt::format("certificates:\n  - {{name: own, certificate_file: {}, key_file: {}}}\n\nlisteners:\n",
                                yaml_text(edge.certificate), yaml_text(edge.key));
  if (at.port == kHttps)
    out += fmt::format("  - {{name: http, bind: [{}]}}\n", yaml_text(Endpoint{at.address, kHttp}.to_string()));
  return out +
         fmt::format("  - {{name: https, bind: [{}], tls: {{certificates: [own]}}}}\n", yaml_text(at.to_string()));
}

std::string routes_of(const FirstEdge& edge) {
  const bool tls = !edge.certificate.empty();
  std::string out = "routes:\n";
  if (tls && edge.listens_at().port == kHttps)
    out += "  - {name: to-https, listeners: [http], redirect: \"https://{host}{path}\"}\n";
  out += fmt::format("  - {{name: app, listeners: [{}],{} pool: app, cache: {{enabled: true}}}}\n",
                     tls ? "https" : "http", edge.hosts.empty() ? "" : " hosts: " + list_of(edge.hosts) + ",");
  return out;
}

}  // namespace

Endpoint FirstEdge::listens_at() const {
  const uint16_t usual = certificate.empty() ? kHttp : kHttps;
  Endpoint at = listen.value_or(Endpoint{});
  if (at.port == 0) at.port = usual;
  return at;
}

std::optional<IpAddress> FirstEdge::public_address() const {
  if (address) return address;
  if (listen && !is_any(listen->address)) return listen->address;
  return std::nullopt;
}

std::vector<std::string> parse_words(std::string_view text) {
  constexpr std::string_view kBetween = ", \t\r\n";
  std::vector<std::string> words;
  for (size_t at = text.find_first_not_of(kBetween); at != std::string_view::npos;
       at = text.find_first_not_of(kBetween, at)) {
    const size_t end = std::min(text.find_first_of(kBetween, at), text.size());
    words.emplace_back(text.substr(at, end - at));
    at = end;
  }
  return words;
}

Result<std::vector<Endpoint>> parse_backends(std::string_view text) {
  std::vector<Endpoint> backends;
  for (const std::string& word : parse_words(text)) {
    const std::optional<Endpoint> backend = Endpoint::parse(word);
    if (!backend || backend->port == 0) {
      return fail(fmt::format("{} is not ADDRESS:PORT, like 192.0.2.7:8080 or [2001:db8::7]:8080", in_quotes(word)));
    }
    if (!is_of_a_host(backend->address)) return fail(in_quotes(word) + " is no address of a server");
    if (std::find(backends.begin(), backends.end(), *backend) != backends.end())
      return fail(in_quotes(word) + " is there twice");
    backends.push_back(*backend);
  }
  if (backends.empty()) return fail("there is no backend: name at least one, as ADDRESS:PORT");
  if (backends.size() > kMaxBackends) return fail(fmt::format("more than {} backends", kMaxBackends));
  return backends;
}

bool is_of_a_host(const IpAddress& address) {
  if (is_any(address)) return false;
  return address.is_v4() ? address.bytes[0] < 224 : address.bytes[0] != 0xff;
}

Result<Endpoint> parse_listen(std::string_view text) {
  std::optional<Endpoint> listen = Endpoint::parse(text);
  if (!listen || listen->port == 0) {
    const std::optional<IpAddress> address = IpAddress::parse(text);
    listen = address ? std::optional(Endpoint{*address, 0}) : std::nullopt;
  }
  if (listen && !is_any(listen->address) && !is_of_a_host(listen->address))
    return fail(in_quotes(text) + " is no address of a host");
  if (listen) return *listen;
  return fail(
      fmt::format("{} is not ADDRESS or ADDRESS:PORT, like 192.0.2.1, 0.0.0.0:8080 or [::]:80", in_quotes(text)));
}

std::string document_of(const FirstEdge& edge) {
  std::string out =
      "# A first edge, written by `tidegate init`. edge.yaml(5) has every key.\n"
      "#   tidegate check FILE          find every fault\n"
      "#   tidegate run FILE            start this node\n"
      "#   tidegate apply FILE --wait   change a node that runs\n"
      "nodes:\n";
  out += fmt::format("  - name: {}\n    l7: {}\n    cache: {}\n", edge.node, edge.l7, edge.cache);
  if (!edge.zone.empty()) {
    const Endpoint at = edge.listens_at();
    out += fmt::format("    dns: {{workers: auto, listen: [{}]}}\n", yaml_text(Endpoint{at.address, kDns}.to_string()));
  }
  out += "\n" + pool_of(edge) + "\n" + listeners_of(edge) + "\n" + routes_of(edge);
  if (!edge.zone.empty()) {
    out += fmt::format("\nzones:\n  - {{name: {}, file: {}}}\n", yaml_text(edge.zone), yaml_text(zone_file_name(edge)));
  }
  return out;
}

std::string zone_file_name(const FirstEdge& edge) { return edge.zone + ".zone"; }

std::string zone_file_of(const FirstEdge& edge) {
  const std::optional<IpAddress> address = edge.public_address();
  TIDEGATE_ASSERT(!edge.zone.empty() && address, "a zone's names lead to an address");
  std::set<std::string> names = {"@", "ns"};
  for (const std::string& host : edge.hosts) {
    const std::string end = "." + edge.zone;
    if (host.ends_with(end)) names.insert(host.substr(0, host.size() - end.size()));
  }
  std::string out =
      "; The zone of a first edge, written by `tidegate init`. Count the serial up with each change.\n"
      "$TTL 300\n"
      "@ SOA ns hostmaster 1 3600 600 604800 300\n"
      "@ NS ns\n";
  for (const std::string& name : names)
    out += fmt::format("{} {} {}\n", name, address->is_v4() ? "A" : "AAAA", address->to_string());
  return out;
}

}  // namespace tidegate::cli
