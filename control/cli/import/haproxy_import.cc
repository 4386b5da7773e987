// SPDX-License-Identifier: Apache-2.0
// HAProxy's configuration as an edge. A frontend becomes a listener, its rules become routes, a backend becomes a pool.

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "conf/policy/authenticate.h"
#include "control/cli/import/haproxy_condition.h"
#include "control/cli/import/haproxy_priority.h"
#include "control/cli/import/haproxy_rules.h"
#include "control/cli/import/haproxy_syntax.h"
#include "control/cli/import/imported.h"
#include "core/ip.h"

namespace tidegate::cli {
namespace {

using nlohmann::json;

using Line = HaproxyLine;
using Section = HaproxySection;

class HaproxyImport {
 public:
  explicit HaproxyImport(Imported& into) : into_(into) {}

  void run(const std::vector<Section>& sections) {
    priorities_ = HaproxyPriorities(sections);
    for (const Section& section : sections) {
      if (section.head.word(0) == "defaults") defaults(section);
      if (section.head.word(0) == "userlist") userlist(section);
    }
    for (const Section& section : sections) {
      if (section.head.word(0) == "backend" || section.head.word(0) == "listen") backend(section);
    }
    for (const Section& section : sections) {
      const std::string& kind = section.head.word(0);
      if (kind == "frontend" || kind == "listen") {
        frontend(section);
      } else if (kind == "global") {
        into_.take();
        for (const Line& line : section.lines) global(line);
      } else if (kind != "defaults" && kind != "backend" && kind != "userlist") {
        leave(section, "there is no counterpart");
      }
    }
    into_.node["l7"].emplace("workers", "auto");  // HAProxy's default
    for (const auto& [name, section] : backends_) {
      if (judged_.count(name) != 0) continue;
      for (const Line& line : section->lines) {
        if (line.word(0) == "acl" || HaproxyRules::has(line.word(0)))
          judge(line, fail("no frontend leads to the backend"));
      }
    }
  }

 private:
  void leave(const Section& section, const std::string& why) {
    into_.leave(section.head.number, section.head.text(), why);
    for (const Line& line : section.lines) into_.leave(line.number, line.text(), why);
  }
  void judge(const Line& line, const Result<void>& outcome) { into_.judge(line.number, line.text(), outcome); }

  void global(const Line& line) {
    static const std::set<std::string> kHeld = {"daemon", "ssl-default-bind-options", "tune.ssl.default-dh-param"};
    const std::string& key = line.word(0);
    const std::optional<uint64_t> number = number_of(line.word(1));
    if (key == "maxconn" && number) return judge(line, set_once(into_.node["l7"], "max_connections", *number));
    if (key == "nbthread" && number) return judge(line, set_once(into_.node["l7"], "workers", *number));
    if (kHeld.count(key) != 0) return into_.take();
    if (key == "log") return judge(line, fail("the log goes to standard error, to the journal"));
    if (key == "stats") return judge(line, fail("see the admin sockets and /metrics"));
    if (key == "user" || key == "group" || key == "chroot")
      return judge(line, fail("the service manager says as whom and where a daemon runs"));
    judge(line, fail("there is no key for it"));
  }

  void defaults(const Section& section) {
    into_.take();
    for (const Line& line : section.lines) {
      if (line.word(0) == "mode") {
        tcp_by_default_ = line.word(1) == "tcp";
        tcp_by_default_ ? judge(line, fail("TCP is the forwarder's: see services")) : into_.take();
      } else if (HaproxyRules::has(line.word(0))) {
        closed_by_defaults_ = closed_answer(403, line.number, line.text(), "rules of all are not taken");
        judge(line, fail("rules of all are not taken; the frontends answer 403 instead"));
      } else if (line.word(0) == "timeout" || line.word(0) == "retries" || line.word(0) == "balance" ||
                 line.word(0) == "option" || line.word(0) == "maxconn") {
        defaults_.push_back(line);
        judge(line, common(line));
      } else {
        judge(line, common(line));
      }
    }
  }

  // What holds everywhere, or has a reason. Lines that a frontend or a backend takes are fine here.
  Result<void> common(const Line& line) {
    static const std::set<std::string> kOptions = {"forwardfor", "http-server-close", "http-keep-alive",
                                                   "redispatch", "dontlognull",       "httpchk"};
    const std::string& key = line.word(0);
    if (key == "option" && kOptions.count(line.word(1)) != 0) return {};
    if (key == "option" && line.word(1) == "httplog") return set_once(into_.node["l7"], "access_log", "-");
    if (key == "timeout") {
      static const std::set<std::string> kTimeouts = {"connect",         "client", "server", "http-request",
                                                      "http-keep-alive", "queue",  "tunnel", "check"};
      if (kTimeouts.count(line.word(1)) == 0) return fail("there is no key for it");
      return duration_of(line.word(2), "ms") ? Result<void>() : fail("it is no number with one unit");
    }
    if (key == "retries" || key == "balance" || key == "maxconn") return {};
    if (key == "mode" && line.word(1) == "http") return {};
    if (key == "log") return fail("see access_log and access_log_format of nodes.l7");
    if (key == "errorfile") return fail("an error has a fixed answer");
    if (key == "stats") return fail("see the admin sockets and /metrics");
    if (key == "cookie" || key == "stick" || key == "stick-table")
      return fail("clients are kept by consistent_hash only");
    if (key == "compression") return fail("see the policy compress");
    return fail("there is no key for it");
  }

  static bool is_tcp(const Section& section, bool otherwise) {
    for (const Line& line : section.lines) {
      if (line.word(0) == "mode") return line.word(1) == "tcp";
    }
    return otherwise;
  }

  static Result<void> timeout(const Line& line, json& object, bool frontend) {
    const std::optional<std::string> duration = duration_of(line.word(2), "ms");
    if (!duration) return fail("it is no number with one unit");
    const std::string& kind = line.word(1);
    const auto put = [&](const char* key) {
      object[key] = *duration;
      return Result<void>();
    };
    if (frontend && kind == "http-request") return put("header_timeout");
    if (frontend && (kind == "client" || kind == "http-keep-alive")) return put("idle_timeout");
    if (!frontend && kind == "connect") return put("connect_timeout");
    if (!frontend && kind == "queue") return put("queue_timeout");
    if (!frontend && kind == "tunnel") return put("tunnel_timeout");
    if (!frontend && kind == "server") {
      object["first_byte_timeout"] = *duration;
      return put("idle_timeout");
    }
    return fail("there is no key for it here");
  }

  // Backends --------------------------------------------------------------------------------------------------------

  void backend(const Section& section) {
    const std::string name = name_of(section.head.word(1));
    if (is_tcp(section, tcp_by_default_)) {
      if (section.head.word(0) == "backend") leave(section, "TCP is the forwarder's: see services");
      return;
    }
    json pool = {{"name", name}};
    json probe = {{"name", name + "-check"}, {"type", "tcp"}};
    bool probed = false;
    for (const Line& line : defaults_) {
      if (line.word(0) == "timeout") (void)timeout(line, pool, false);
      if (line.word(0) == "balance") (void)balance(line, pool);
      if (line.word(0) == "option" && line.word(1) == "httpchk") (void)check(line, probe);
      if (line.word(0) == "retries" && number_of(line.word(1))) pool["retry_attempts"] = *number_of(line.word(1));
    }
    const bool listen = section.head.word(0) == "listen";
    if (!listen) into_.take();
    for (const Line& line : section.lines) {
      if (listen ? !of_backend(line) : line.word(0) == "acl" || HaproxyRules::has(line.word(0))) continue;
      judge(line, backend_line(line, pool, probe, probed));
    }
    if (!listen) backends_[name] = &section;
    if (pool.count("backends") == 0) return;
    if (probed) {
      pool["probe"] = probe.at("name");
      into_.object("probes", probe.at("name")) = probe;
    }
    into_.object("pools", name) = pool;
  }

  static bool of_backend(const Line& line) {
    const std::string& key = line.word(0);
    return key == "server" || key == "balance" || key == "http-check" || key == "retries" || key == "default-server" ||
           (key == "option" && line.word(1) == "httpchk") ||
           (key == "timeout" && (line.word(1) == "connect" || line.word(1) == "server" || line.word(1) == "queue"));
  }

  Result<void> backend_line(const Line& line, json& pool, json& probe, bool& probed) {
    const std::string& key = line.word(0);
    if (key == "server") return server(line, pool, probe, probed);
    if (key == "balance") return balance(line, pool);
    if (key == "timeout") return timeout(line, pool, false);
    if (key == "retries" && number_of(line.word(1))) return set_once(pool, "retry_attempts", *number_of(line.word(1)));
    if (key == "option" && line.word(1) == "httpchk") return check(line, probe);
    if (key == "http-check") return http_check(line, probe);
    return common(line);
  }

  static Result<void> balance(const Line& line, json& pool) {
    const std::string& how = line.word(1);
    if (how == "roundrobin" || how == "static-rr") {
      pool["policy"] = "weighted_round_robin";
    } else if (how == "leastconn") {
      pool["policy"] = "least_requests";
    } else if (how == "source" || how == "uri" || how.starts_with("hdr(")) {
      pool["policy"] = "consistent_hash";
      pool["hash_on"] = how == "source" ? "client" : how == "uri" ? "path" : "header:" + how.substr(4, how.size() - 5);
    } else {
      return fail("there is no such policy");
    }
    return {};
  }

  static Result<void> check(const Line& line, json& probe) {
    probe["type"] = "http";
    const std::string path = line.word(2).starts_with("/") ? line.word(2) : line.word(3);
    if (!path.empty()) probe["path"] = path;
    return {};
  }

  static Result<void> http_check(const Line& line, json& probe) {
    if (line.word(1) == "expect" && line.word(2) == "status" && number_of(line.word(3))) {
      probe["expect_status"] = *number_of(line.word(3));
      return {};
    }
    if (line.word(1) == "send") {
      if (const std::string path = line.after("uri"); !path.empty()) probe["path"] = path;
      if (const std::string host = line.after("Host"); !host.empty()) probe["host"] = host;
      return {};
    }
    return fail("a probe asks for one path and expects one status");
  }

  Result<void> server(const Line& line, json& pool, json& probe, bool& probed) {
    const size_t number = pool.count("backends") == 0 ? 1 : pool["backends"].size() + 1;
    Result<json> made = backend_of(line.word(2), 80, number);
    if (!made) return made.error();
    json backend = *std::move(made);
    if (line.has("backup")) backend["backup"] = true;
    const std::string name = name_of(line.word(1));
    for (const json& other : pool.value("backends", json::array())) {
      if (other.at("name") == name) return fail("another server has this name");
    }
    backend["name"] = name;
    if (const auto weight = number_of(line.after("weight"))) backend["weight"] = *weight;
    if (line.has("disabled")) backend["weight"] = 0;
    if (const auto most = number_of(line.after("maxconn")); most && *most > 0) pool["max_connections"] = *most;
    if (line.has("ssl")) {
      pool["tls"] = true;
      pool["tls_verify"] = line.after("verify") != "none";
      if (const std::string file = line.after("ca-file"); !file.empty()) pool["tls_ca_file"] = file;
      if (probe["type"] == "http") probe["type"] = "https", probe["tls_verify"] = pool["tls_verify"];
    }
    if (line.after("proto") == "h2" || line.after("alpn") == "h2") pool["protocol"] = "h2";
    probed = probed || line.has("check");
    if (const auto interval = duration_of(line.after("inter"), "ms")) probe["interval"] = *interval;
    if (const auto rise = number_of(line.after("rise"))) probe["rise"] = *rise;
    if (const auto fall = number_of(line.after("fall"))) probe["fall"] = *fall;
    pool["backends"].push_back(std::move(backend));
    return {};
  }

  // Frontends -------------------------------------------------------------------------------------------------------

  struct Frontend {
    std::string name;
    std::vector<std::string> listeners;
    HaproxyDoors doors;
  };

  void frontend(const Section& section) {
    if (is_tcp(section, tcp_by_default_)) return leave(section, "TCP is the forwarder's: see services");
    into_.take();
    Frontend frontend;
    frontend.name = name_of(section.head.word(1));
    for (const Line& line : section.lines) {
      if (line.word(0) == "bind") judge(line, bind(line, frontend));
    }
    HaproxyLists lists(frontend.doors);
    for (const Line& line : section.lines) {
      if (line.word(0) == "acl") judge(line, lists.add(line));
    }
    const bool listen = section.head.word(0) == "listen";
    for (const Line& line : section.lines) {
      const std::string& key = line.word(0);
      if (key == "bind" || key == "acl" || HaproxyRules::has(key) || (listen && of_backend(line))) continue;
      judge(line, frontend_line(line, frontend));
    }
    if (frontend.listeners.empty()) {
      for (const Line& line : section.lines) {
        if (HaproxyRules::has(line.word(0))) judge(line, fail("the frontend has no address"));
      }
      return;
    }
    HaproxyRules rules(into_, lists, users_, priorities_);
    Cases last = {
        {{}, listen && into_.has("pools", frontend.name) ? json({{"pool", frontend.name}}) : json({{"status", 503}})}};
    const Cases cases =
        rules.cases(section, std::move(last), [&](const std::string& name) { return passed(name, frontend); });
    for (const auto& [host, here] : by_host(closed_by_defaults_.is_null() ? cases : Cases{{{}, closed_by_defaults_}})) {
      const std::vector<std::string> hosts = host.empty() ? std::vector<std::string>() : std::vector<std::string>{host};
      add_routes(into_, {frontend.listeners, hosts, "/*", frontend.name}, here);
    }
    for (const Line& line : defaults_) {
      if (line.word(0) != "timeout") continue;
      for (const std::string& name : frontend.listeners) {
        json& listener = into_.object("listeners", name);
        json changed = listener;
        if (timeout(line, changed, true))
          for (const auto& [key, value] : changed.items()) listener.emplace(key, value);
      }
    }
  }

  // What a backend does with the requests that it gets: its own rules come first. Empty: there is no such pool.
  Cases passed(const std::string& name, const Frontend& frontend) {
    const auto section = backends_.find(name);
    if (!into_.has("pools", name) || section == backends_.end()) return {};
    Cases last = {{{}, {{"pool", name}}}};
    HaproxyLists lists(frontend.doors);
    const bool first = judged_.insert(name).second;
    for (const Line& line : section->second->lines) {
      if (line.word(0) != "acl") continue;
      const Result<void> outcome = lists.add(line);
      if (first) judge(line, outcome);
    }
    HaproxyRules rules(into_, lists, users_, priorities_);
    return rules.cases(*section->second, std::move(last), {}, first);
  }

  Result<void> frontend_line(const Line& line, Frontend& frontend) {
    const std::string& key = line.word(0);
    if (key == "maxconn" && number_of(line.word(1)))
      return set_once(into_.node["l7"], "max_connections", *number_of(line.word(1)));
    if (key == "timeout") {
      Result<void> outcome = fail("the frontend has no address");
      for (const std::string& name : frontend.listeners) outcome = timeout(line, into_.object("listeners", name), true);
      return outcome;
    }
    return common(line);
  }

  Result<void> bind(const Line& line, Frontend& frontend) {
    std::string where = line.word(1);
    if (where.starts_with("*:") || where.starts_with(":")) where = "0.0.0.0" + where.substr(where.find(':'));
    const std::optional<Endpoint> endpoint = Endpoint::parse(where);
    if (!endpoint || endpoint->port == 0) return fail("a listener has one address and one port");
    const bool tls = line.has("ssl");
    const std::string file = line.after("crt");
    if (tls && file.empty()) return fail("TLS needs a file behind crt");
    const std::string verify = line.after("verify");
    if (tls && !verify.empty() && verify != "none" && line.after("ca-file").empty())
      return fail("certificates of clients are checked by ca-file");
    const std::string name = into_.free_name("listeners", fmt::format("{}-{}", frontend.name, endpoint->port));
    json& listener = into_.object("listeners", name);
    listener["bind"] = json::array({endpoint->to_string()});
    if (tls) {
      // HAProxy's file has the key beside the certificate.
      const size_t slash = file.rfind('/') + 1;
      const std::string certificate = name_of(file.substr(slash));
      json& object = into_.object("certificates", certificate);
      object["certificate_file"] = file;
      object["key_file"] = file;
      listener["tls"]["certificates"] = json::array({certificate});
      if (!verify.empty() && verify != "none") {
        json& clients = listener["tls"]["client_certificates"];
        clients["ca_file"] = line.after("ca-file");
        if (const std::string list = line.after("crl-file"); !list.empty()) clients["crl_file"] = list;
        if (verify == "optional") clients["optional"] = true;
      }
    }
    // There every connection begins so, whoever makes it.
    if (line.has("accept-proxy")) listener["proxy_protocol_from"] = json::array({"0.0.0.0/0", "::/0"});
    frontend.listeners.push_back(name);
    (tls ? frontend.doors.tls : frontend.doors.clear).push_back(name);
    frontend.doors.by_port[endpoint->port].push_back(name);
    return {};
  }

  // `user NAME password HASH`
  void userlist(const Section& section) {
    into_.take();
    json& users = users_[section.head.word(1)];
    users = json::array();
    for (const Line& line : section.lines) {
      const std::string hash = line.word(2) == "password" ? line.word(3) : "";
      if (line.word(0) == "user" && is_password_hash(hash)) {
        users.push_back({{"name", line.word(1)}, {"password", hash}});
        judge(line, line.has("groups") ? fail("the user has no groups: see roles of policies.authenticate.basic.users")
                                       : Result<void>());
      } else {
        judge(line, fail(line.word(0) == "user" ? "a password is a hash of SHA-256, SHA-512 or bcrypt"
                                                : "there are no groups"));
      }
    }
  }

  Imported& into_;
  std::vector<Line> defaults_;
  bool tcp_by_default_ = false;
  json closed_by_defaults_;                         // rules there would be everybody's
  std::map<std::string, const Section*> backends_;  // by the pool's name
  std::map<std::string, json> users_;               // of userlists
  HaproxyPriorities priorities_;
  std::set<std::string> judged_;  // backends whose rules are
};

}  // namespace

Result<void> import_haproxy(std::string_view text, Imported& into) {
  const Result<std::vector<Section>> sections = parse_haproxy(text);
  if (!sections) return sections.error();
  HaproxyImport(into).run(*sections);
  return {};
}

}  // namespace tidegate::cli
