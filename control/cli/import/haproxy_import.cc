// SPDX-License-Identifier: Apache-2.0
// HAProxy's configuration as an edge. A frontend becomes a listener, its rules become routes, a backend becomes a pool.

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "control/cli/import/haproxy_syntax.h"
#include "control/cli/import/imported.h"
#include "core/ip.h"

namespace tidegate::cli {
namespace {

using nlohmann::json;

using Line = HaproxyLine;
using Section = HaproxySection;

// What an access list asks for. All of it has to hold.
struct Match {
  std::vector<std::string> hosts, paths, methods;
  bool clear = false;  // a connection without TLS
};

class HaproxyImport {
 public:
  explicit HaproxyImport(Imported& into) : into_(into) {}

  void run(const std::vector<Section>& sections) {
    for (const Section& section : sections) {
      if (section.head.word(0) == "defaults") defaults(section);
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
      } else if (kind != "defaults" && kind != "backend") {
        leave(section, "there is no counterpart");
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
    if (section.head.word(0) == "backend") into_.take();
    for (const Line& line : section.lines) {
      if (!of_backend(line) && section.head.word(0) == "listen") continue;
      judge(line, backend_line(line, pool, probe, probed));
    }
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
    if (key == "http-request" || key == "http-response")
      return fail("headers are set by routes: set it in the frontend");
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
    if (line.has("backup")) return fail("there are no backup backends");
    json backend = *std::move(made);
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
    std::vector<std::string> listeners, clear;  // of all; of those without TLS
    std::map<std::string, Match> lists;
    json request_headers = json::object(), response_headers = json::object();
    size_t routes = 0;
  };

  void frontend(const Section& section) {
    if (is_tcp(section, tcp_by_default_)) return leave(section, "TCP is the forwarder's: see services");
    into_.take();
    Frontend frontend;
    frontend.name = name_of(section.head.word(1));
    for (const Line& line : section.lines) {
      if (line.word(0) == "bind") judge(line, bind(line, frontend));
      if (line.word(0) == "acl") judge(line, list(line, frontend));
      if (line.word(0) == "http-request" || line.word(0) == "http-response")
        judge(line, header_or_redirect(line, frontend));
    }
    for (const Line& line : section.lines) {
      const std::string& key = line.word(0);
      if (key == "bind" || key == "acl" || key == "http-request" || key == "http-response") continue;
      if (section.head.word(0) == "listen" && of_backend(line)) continue;
      judge(line, frontend_line(line, frontend));
    }
    if (section.head.word(0) == "listen" && into_.has("pools", frontend.name)) (void)route(frontend, {}, frontend.name);
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

  Result<void> frontend_line(const Line& line, Frontend& frontend) {
    const std::string& key = line.word(0);
    if (key == "use_backend") return use(line, frontend);
    if (key == "default_backend") return route(frontend, {}, name_of(line.word(1)));
    if (key == "redirect") return redirect(line, 0, frontend);
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
    } else {
      frontend.clear.push_back(name);
    }
    if (line.has("accept-proxy")) {
      frontend.listeners.push_back(name);
      return fail("the PROXY protocol is not read; the address is taken without it");
    }
    frontend.listeners.push_back(name);
    return {};
  }

  static Result<void> list(const Line& line, Frontend& frontend) {
    Match match;
    std::vector<std::string> values(
        line.words.begin() + std::min<ptrdiff_t>(3, static_cast<ptrdiff_t>(line.words.size())), line.words.end());
    std::erase(values, "-i");
    std::string fetch = line.word(2), how;
    if (values.size() > 1 && values.front() == "-m") {
      how = values.at(1);
      values.erase(values.begin(), values.begin() + 2);
    }
    if (values.empty() && fetch != "ssl_fc") return fail("no value is given");
    if (fetch == "hdr(host)" || fetch == "req.hdr(host)" || fetch == "hdr_dom(host)") {
      if (!how.empty() && how != "str") return fail("hosts are whole names, or all below one");
      match.hosts = values;
    } else if (fetch == "hdr_end(host)") {
      for (const std::string& value : values) match.hosts.push_back(value.starts_with(".") ? "*" + value : value);
    } else if (fetch == "path_beg" || (fetch == "path" && how == "beg")) {
      for (const std::string& value : values) match.paths.push_back(value + (value.ends_with("/") ? "*" : "/*"));
    } else if (fetch == "path" && (how.empty() || how == "str")) {
      match.paths = values;
    } else if (fetch == "method") {
      match.methods = values;
    } else {
      return fail("routes depend on host, path and method only");
    }
    Match& known = frontend.lists[line.word(1)];  // several lines of one name: any of them
    for (const auto& [into, from] : {std::pair(&known.hosts, &match.hosts), std::pair(&known.paths, &match.paths),
                                     std::pair(&known.methods, &match.methods)})
      into->insert(into->end(), from->begin(), from->end());
    return {};
  }

  // What stands behind `if`. Error: it cannot be a route.
  static Result<Match> condition(const Line& line, const Frontend& frontend) {
    Match all;
    const auto begin = std::find(line.words.begin(), line.words.end(), "if");
    if (const auto unless = std::find(line.words.begin(), line.words.end(), "unless"); unless != line.words.end()) {
      all.clear =
          std::vector<std::string>(unless + 1, line.words.end()) == std::vector<std::string>{"{", "ssl_fc", "}"};
      if (!all.clear) return fail("a route says what it takes, not what it does not");
      return all;
    }
    if (begin == line.words.end()) return all;
    for (auto word = begin + 1; word != line.words.end(); ++word) {
      if (*word == "or" || *word == "||") return fail("write one line for each side of 'or'");
      if (*word == "{" || *word == "!{") {
        const bool clear =
            *word == "!{" && word + 2 < line.words.end() && *(word + 1) == "ssl_fc" && *(word + 2) == "}";
        if (!clear) return fail("name the condition in an acl line");
        all.clear = true;
        word += 2;
        continue;
      }
      const auto found = frontend.lists.find(*word);
      if (found == frontend.lists.end()) return fail(fmt::format("the condition '{}' is not taken", *word));
      const Match& match = found->second;
      for (const auto& [into, from] : {std::pair(&all.hosts, &match.hosts), std::pair(&all.paths, &match.paths),
                                       std::pair(&all.methods, &match.methods)}) {
        if (!into->empty() && !from->empty()) return fail("two conditions about one thing");
        into->insert(into->end(), from->begin(), from->end());
      }
    }
    return all;
  }

  Result<void> use(const Line& line, Frontend& frontend) {
    Result<Match> match = condition(line, frontend);
    if (!match) return match.error();
    return route(frontend, *match, name_of(line.word(1)));
  }

  // One route for each path.
  std::vector<json*> routes_for(Frontend& frontend, const Match& match) {
    std::vector<json*> made;
    for (const std::string& path : match.paths.empty() ? std::vector<std::string>{"/*"} : match.paths) {
      std::string key = fmt::format("{} {} {} {}", frontend.name, path, fmt::join(match.hosts, ","), match.clear) +
                        fmt::format("{}", fmt::join(match.methods, ","));
      if (!taken_.insert(key).second) continue;
      json& route =
          into_.object("routes", into_.free_name("routes", fmt::format("{}-{}", frontend.name, ++frontend.routes)));
      route["listeners"] = match.clear ? frontend.clear : frontend.listeners;
      if (!match.hosts.empty()) route["hosts"] = match.hosts;
      if (!match.methods.empty()) route["methods"] = match.methods;
      route["path"] = path;
      if (!frontend.request_headers.empty()) route["request_headers"] = frontend.request_headers;
      if (!frontend.response_headers.empty()) route["response_headers"] = frontend.response_headers;
      made.push_back(&route);
    }
    return made;
  }

  Result<void> route(Frontend& frontend, const Match& match, const std::string& pool) {
    if (!into_.has("pools", pool)) return fail(fmt::format("there is no pool '{}'", pool));
    if (frontend.listeners.empty()) return fail("the frontend has no address");
    const std::vector<json*> made = routes_for(frontend, match);
    for (json* route : made) (*route)["pool"] = pool;
    return made.empty() ? fail("another rule takes these requests before") : Result<void>();
  }

  // "redirect scheme https code 301 if !{ ssl_fc }", from word `begin` on.
  Result<void> redirect(const Line& line, size_t begin, Frontend& frontend) {
    Result<Match> match = condition(line, frontend);
    if (!match) return match.error();
    const std::string kind = line.word(begin + 1), value = line.word(begin + 2);
    if (value.find("%[") != std::string::npos) return fail("there are no variables");
    std::string to = value;
    if (kind == "scheme") {
      // It ends at a connection with TLS, which a redirect of our own does by the listener.
      to = value + "://{host}{path}";
      match->clear = match->clear || value == "https";
    } else if (kind == "prefix") {
      to = value + "{path}";
    } else if (kind != "location") {
      return fail("there is no such redirect");
    }
    if (match->clear && frontend.clear.empty()) return fail("the frontend has no address without TLS");
    const std::vector<json*> made = routes_for(frontend, *match);
    for (json* route : made) {
      (*route)["redirect"] = to;
      if (const auto code = number_of(line.after("code"))) (*route)["status"] = *code;
    }
    if (match->clear && match->paths.empty() && match->hosts.empty()) {
      // What the rules after it take comes by TLS.
      std::erase_if(frontend.listeners, [&](const std::string& name) {
        return frontend.listeners.size() > frontend.clear.size() &&
               std::find(frontend.clear.begin(), frontend.clear.end(), name) != frontend.clear.end();
      });
    }
    return made.empty() ? fail("another rule takes these requests before") : Result<void>();
  }

  Result<void> header_or_redirect(const Line& line, Frontend& frontend) {
    const std::string& what = line.word(1);
    if (what == "redirect") return redirect(line, 1, frontend);
    const bool request = line.word(0) == "http-request";
    if (what != "set-header" && what != "del-header" && what != "add-header")
      return fail("headers are set and removed, and requests redirected");
    if (line.has("if") || line.has("unless")) return fail("headers are set for every request of a route");
    const std::string value = what == "del-header" ? "" : line.word(3);
    std::string name = line.word(2);
    std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::tolower(c); });
    if (request && (name == "x-forwarded-proto" || name == "x-forwarded-for")) return {};  // the proxy sets them
    if (value.find("%[") != std::string::npos) return fail("there are no variables");
    return set_once(request ? frontend.request_headers : frontend.response_headers, name, value);
  }

  Imported& into_;
  std::vector<Line> defaults_;
  bool tcp_by_default_ = false;
  std::set<std::string> taken_;  // what requests a route takes
};

}  // namespace

Result<void> import_haproxy(std::string_view text, Imported& into) {
  const Result<std::vector<Section>> sections = parse_haproxy(text);
  if (!sections) return sections.error();
  HaproxyImport(into).run(*sections);
  return {};
}

}  // namespace tidegate::cli
