// SPDX-License-Identifier: Apache-2.0
// The addresses and names of nginx's servers as listeners and hosts. An address serves the servers that name it and no
// others, so addresses share a listener only if they have the same servers.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "control/cli/import/nginx_scope.h"

namespace tidegate::cli {

struct NginxListening {
  std::vector<std::string> listeners, hosts;
  bool any_host = false;
  bool alone = true;  // no other server has one of the listeners
  bool tls = false;   // all of them
};

class NginxListeners {
 public:
  explicit NginxListeners(Imported& into) : into_(into) {}
  // Judges listen, server_name, ssl_certificate and ssl_certificate_key. The last two may stand around the servers.
  void read(const std::vector<const NginxDirective*>& servers, const NginxDirective* certificate,
            const NginxDirective* key);
  const NginxListening& of(const NginxDirective& server) const { return servers_.at(&server); }
  // Whether requests for a host come to a server. Nothing: at some of its addresses another server takes them.
  std::optional<bool> reaches(const NginxListening& server, const std::string& host) const;

 private:
  struct Bind {
    bool tls = false;
    std::vector<const NginxDirective*> servers;  // the default one first
    std::vector<std::string> certificates;
  };
  std::string certificate_of(const std::string& certificate, const std::string& key);
  std::string read_certificate(const NginxDirective& server);
  Result<void> names(const NginxDirective& directive, NginxListening& server);
  Result<void> listen(const NginxDirective& directive, const NginxDirective& server, const std::string& certificate);
  void make();
  void drop_taken_names(const std::vector<const NginxDirective*>& servers);

  Imported& into_;
  const NginxDirective* certificate_ = nullptr;
  const NginxDirective* key_ = nullptr;
  std::map<std::string, Bind> binds_;  // by address and port
  std::map<const NginxDirective*, NginxListening> servers_;
};

// What a server says for its connections. Each outcome goes to `note`; other directives are none of its business.
void set_nginx_listener(const NginxDirective& directive, nlohmann::json& listener, const NginxNote& note);
// A network whose proxies are believed.
Result<void> set_nginx_trust(const std::string& network, nlohmann::json& listener);

}  // namespace tidegate::cli
