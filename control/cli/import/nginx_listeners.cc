// SPDX-License-Identifier: Apache-2.0
#include "control/cli/import/nginx_listeners.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "conf/text.h"
#include "control/cli/import/nginx_settings.h"
#include "core/ip.h"

namespace tidegate::cli {
namespace {

using nlohmann::json;
using Directive = NginxDirective;

bool has_word(const Directive& directive, const char* word) {
  return std::find(directive.arguments.begin(), directive.arguments.end(), word) != directive.arguments.end();
}

template <class T>
void add_once(std::vector<T>& list, const T& value) {
  if (std::find(list.begin(), list.end(), value) == list.end()) list.push_back(value);
}

}  // namespace

void NginxListeners::read(const std::vector<const Directive*>& servers, const Directive* certificate,
                          const Directive* key) {
  certificate_ = certificate;
  key_ = key;
  for (const Directive* server : servers) {
    NginxListening& listening = servers_[server];
    bool named = false, listens = false;
    for (const Directive& child : server->block) {
      if (child.name != "server_name") continue;
      named = true;
      into_.judge(child.line, child.text(), names(child, listening));
    }
    if (!named) listening.any_host = true;
    const std::string own = read_certificate(*server);
    for (const Directive& child : server->block) {
      if (child.name != "listen") continue;
      listens = true;
      into_.judge(child.line, child.text(), listen(child, *server, own));
      if (has_word(child, "default_server") || has_word(child, "default")) listening.any_host = true;
    }
    if (!listens) (void)listen(Directive{"listen", {"80"}, {}, false, server->line}, *server, own);
  }
  for (const Directive* each : {certificate, key}) {
    if (each != nullptr) into_.take();
  }
  make();
  drop_taken_names(servers);
}

Result<void> NginxListeners::names(const Directive& directive, NginxListening& server) {
  Result<void> outcome;
  for (const std::string& word : directive.arguments) {
    const std::string name = lower_case(word);
    if (name == "_" || name.empty()) {
      server.any_host = true;
    } else if (name.front() == '~' || name.ends_with(".*") || name.find('$') != std::string::npos) {
      outcome = fail(fmt::format("'{}' is a pattern that hosts cannot say", name));
    } else if (name.front() == '.') {
      add_once(server.hosts, name.substr(1));
      add_once(server.hosts, "*" + name);
    } else {
      add_once(server.hosts, name);
    }
  }
  return outcome;
}

std::string NginxListeners::read_certificate(const Directive& server) {
  const Directive* certificate = nullptr;
  const Directive* key = nullptr;
  for (const Directive& child : server.block) {
    if (child.name == "ssl_certificate") certificate = &child;
    if (child.name == "ssl_certificate_key") key = &child;
  }
  const Directive* used = certificate != nullptr ? certificate : certificate_;
  const Directive* used_key = key != nullptr ? key : key_;
  const bool whole = used != nullptr && used_key != nullptr;
  for (const Directive* each : {certificate, key}) {
    if (each == nullptr) continue;
    into_.judge(each->line, each->text(), whole ? Result<void>() : fail("a certificate needs its key beside it"));
  }
  for (const Directive& child : server.block) {
    if ((child.name == "ssl_certificate" && &child != certificate) ||
        (child.name == "ssl_certificate_key" && &child != key))
      into_.leave(child.line, child.text(), "a server has one certificate");
  }
  return whole ? certificate_of(argument_of(*used), argument_of(*used_key)) : "";
}

std::string NginxListeners::certificate_of(const std::string& certificate, const std::string& key) {
  for (const json& known : into_.objects("certificates")) {
    if (known.at("certificate_file") == certificate && known.at("key_file") == key) return known.at("name");
  }
  const size_t slash = certificate.rfind('/') + 1;
  const std::string name = into_.free_name("certificates", certificate.substr(slash, certificate.rfind('.') - slash));
  json& object = into_.object("certificates", name);
  object["certificate_file"] = certificate;
  object["key_file"] = key;
  return name;
}

Result<void> NginxListeners::listen(const Directive& directive, const Directive& server,
                                    const std::string& certificate) {
  const std::string& where = argument_of(directive);
  const bool tls = has_word(directive, "ssl");
  std::string address = "0.0.0.0", port = where;
  if (where.starts_with("unix:")) return fail("listeners have addresses");
  if (has_word(directive, "quic")) return fail("HTTP/3 is not spoken");
  if (const size_t colon = where.rfind(':'); colon != std::string::npos && !where.ends_with(']')) {
    address = where.substr(0, colon);
    port = where.substr(colon + 1);
  } else if (where.find_first_not_of("0123456789") != std::string::npos) {
    address = where;
    port = "80";
  }
  if (address == "*") address = "0.0.0.0";
  if (address == "localhost") address = "127.0.0.1";
  const std::optional<Endpoint> endpoint = Endpoint::parse(address + ":" + port);
  if (!endpoint || endpoint->port == 0) return fail(fmt::format("'{}' is no address and port", where));
  if (tls && certificate.empty()) return fail("TLS needs a certificate in the same server");
  // Its clients' addresses are those of the header, and rules about them would be about the proxy before.
  if (has_word(directive, "proxy_protocol")) return fail("say whose connections begin so: proxy_protocol_from");
  Bind& bind = binds_[endpoint->to_string()];
  bind.tls = bind.tls || tls;
  const bool first = has_word(directive, "default_server") || has_word(directive, "default");
  if (std::find(bind.servers.begin(), bind.servers.end(), &server) == bind.servers.end())
    bind.servers.insert(first ? bind.servers.begin() : bind.servers.end(), &server);
  if (!certificate.empty() &&
      std::find(bind.certificates.begin(), bind.certificates.end(), certificate) == bind.certificates.end())
    bind.certificates.insert(first ? bind.certificates.begin() : bind.certificates.end(), certificate);
  return {};
}

void NginxListeners::make() {
  std::map<std::string, std::string> known;  // names, by port, TLS and servers
  for (const auto& [address, bind] : binds_) {
    const uint16_t port = Endpoint::parse(address)->port;
    std::string key = fmt::format("{} {}", port, bind.tls);
    for (const Directive* server : bind.servers)
      key += fmt::format(" {}", server->line) + fmt::format("/{}", fmt::ptr(server));
    std::string& name = known[key];
    if (name.empty()) name = into_.free_name("listeners", fmt::format("{}-{}", bind.tls ? "https" : "http", port));
    json& listener = into_.object("listeners", name);
    listener["bind"].push_back(address);
    if (bind.tls) listener["tls"]["certificates"] = bind.certificates;
    for (const Directive* server : bind.servers) {
      NginxListening& listening = servers_.at(server);
      listening.tls = bind.tls && (listening.listeners.empty() || listening.tls);
      listening.alone = listening.alone && bind.servers.size() == 1;
      add_once(listening.listeners, name);
    }
  }
}

// Of two servers with one name at one address nginx takes the first.
void NginxListeners::drop_taken_names(const std::vector<const Directive*>& servers) {
  std::set<std::string> taken;
  for (const Directive* server : servers) {
    NginxListening& listening = servers_.at(server);
    const auto take = [&](const std::string& host) {
      const bool is_free = std::none_of(listening.listeners.begin(), listening.listeners.end(),
                                        [&](const auto& listener) { return taken.count(listener + " " + host) != 0; });
      if (!is_free) return false;
      for (const std::string& listener : listening.listeners) taken.insert(listener + " " + host);
      return true;
    };
    std::erase_if(listening.hosts, [&](const std::string& host) { return !take(host); });
    if (listening.any_host) listening.any_host = take("");
  }
}

std::optional<bool> NginxListeners::reaches(const NginxListening& server, const std::string& host) const {
  // nginx prefers the whole name, then the longest pattern, then the default server.
  const auto rank = [&](const NginxListening& each) {
    size_t best = each.any_host ? 1 : 0;
    for (const std::string& own : each.hosts) {
      if (own == host) return std::string::npos;
      if (host_covers(own, host)) best = std::max(best, own.size());
    }
    return best;
  };
  const size_t own = rank(server);
  if (own == 0) return false;
  bool everywhere = true, somewhere = false;
  for (const std::string& listener : server.listeners) {
    const bool taken = std::any_of(servers_.begin(), servers_.end(), [&](const auto& each) {
      const std::vector<std::string>& theirs = each.second.listeners;
      return std::find(theirs.begin(), theirs.end(), listener) != theirs.end() && rank(each.second) > own;
    });
    everywhere = everywhere && !taken;
    somewhere = somewhere || !taken;
  }
  if (everywhere != somewhere) return std::nullopt;
  return everywhere;
}

void set_nginx_listener(const Directive& directive, json& listener, const NginxNote& note) {
  const std::string& value = argument_of(directive);
  const auto size = [&](const char* key, const std::string& text) -> Result<void> {
    const std::optional<std::string> bytes = size_of(text);
    return bytes ? set_once(listener, key, *bytes) : fail("it is no size");
  };
  Result<void> outcome;
  if (directive.name == "client_max_body_size") {
    outcome = value == "0" ? fail("there is always a bound: max_body") : size("max_body", value);
  } else if (directive.name == "client_header_timeout") {
    outcome = set_nginx_duration(listener, "header_timeout", value);
  } else if (directive.name == "keepalive_timeout" || directive.name == "client_body_timeout") {
    outcome = set_nginx_duration(listener, "idle_timeout", value);
  } else if (directive.name == "large_client_header_buffers") {
    outcome = size("max_header", argument_of(directive, 1));
  } else if (directive.name == "ssl_protocols") {
    // The newest of several servers' oldest counts.
    const bool old = has_word(directive, "TLSv1.2") || has_word(directive, "TLSv1.1") || has_word(directive, "TLSv1");
    if (listener.count("tls") != 0 && listener["tls"].value("min_version", "") != "1.3")
      listener["tls"]["min_version"] = old ? "1.2" : "1.3";
  } else if (directive.name == "underscores_in_headers" || directive.name == "merge_slashes") {
    outcome = set_once(listener, directive.name, value == "on");
  } else {
    return;
  }
  note(directive, outcome);
}

Result<void> set_nginx_trust(const std::string& network, json& listener) {
  if (!Cidr::parse(network)) return fail("trusted_proxies are networks");
  json& proxies = listener["trusted_proxies"];
  if (std::find(proxies.begin(), proxies.end(), network) == proxies.end()) proxies.push_back(network);
  return {};
}

}  // namespace tidegate::cli
