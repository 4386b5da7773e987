// SPDX-License-Identifier: Apache-2.0
#include "control/cli/import/nginx_scope.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "conf/limits.h"
#include "conf/model/common.h"
#include "conf/policy/authenticate.h"
#include "conf/route_checks.h"
#include "conf/text.h"
#include "control/cli/import/nginx_regex.h"
#include "control/cli/import/nginx_settings.h"
#include "core/http1.h"
#include "core/ip.h"
#include "core/regex.h"

namespace tidegate::cli {
namespace {

using nlohmann::json;
using Directive = NginxDirective;
using Directives = std::vector<const Directive*>;

std::vector<NetworkRule> networks_of(const NginxScope& scope) {
  std::vector<NetworkRule> rules;
  for (const Directive* each : scope.all("access")) {
    if (argument_of(*each) != "unix:") rules.push_back({each->name == "allow", argument_of(*each)});
  }
  return rules;
}

// The users of a file of htpasswd whose hashes can be checked here.
Result<json> users_of(const std::string& text, std::string& left) {
  json users = json::array();
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    std::string line = text.substr(at, end - at);
    at = end + 1;
    if (line.ends_with('\r')) line.pop_back();
    const size_t colon = line.find(':');
    if (line.empty() || line.front() == '#' || colon == std::string::npos) continue;
    const std::string name = line.substr(0, colon),
                      hash = line.substr(colon + 1, line.find(':', colon + 1) - colon - 1);
    if (!is_password_hash(hash)) {
      left += (left.empty() ? "" : ", ") + name;
      continue;
    }
    const bool known = std::any_of(users.begin(), users.end(), [&](const json& user) { return user["name"] == name; });
    if (!known) users.push_back({{"name", name}, {"password", hash}});  // the first of a name counts
  }
  if (users.empty()) return fail("no user of the file has a hash of bcrypt, SHA-256 or SHA-512 of crypt(5)");
  return users;
}

class Guard {
 public:
  Guard(const NginxScope& scope, Imported& into, const NginxNote& note) : scope_(scope), into_(into), note_(note) {}

  Cases cases(const json& normal, const std::function<NginxQuestion(const std::string&)>& question) {
    for (const Directive* guard : scope_.guards) refuse(*guard, why_nginx_left(guard->name));
    json authenticate = json::object();
    basic(authenticate);
    request(authenticate, question);
    const std::vector<NetworkRule> rules = networks_of(scope_);
    const Directive* satisfy = scope_.one("satisfy");
    const bool any = satisfy != nullptr && argument_of(*satisfy) == "any";
    if (satisfy != nullptr) note_(*satisfy, {});
    if (!rules.empty() && scope_.one("real address") != nullptr)
      refuse_networks("the client's address is read from X-Forwarded-For alone");
    Cases out = {{{}, normal}};
    if (any && !rules.empty() && !authenticate.empty()) {
      const Result<std::vector<std::string>> clients = clients_of(rules);
      if (!clients) {
        refuse_networks(clients.error().message);
      } else {
        note_networks({});
        add_policy(out.back().answer, {{"authenticate", authenticate}});
        When from;
        from.match["clients"] = *clients;
        if (!clients->empty()) out.insert(out.begin(), {from, normal});
      }
    } else {
      json content = json::object();
      if (!rules.empty()) {
        const Result<json> networks = authorise_by(rules);
        if (networks) {
          note_networks({});
          content["authorise"] = *networks;
        } else {
          refuse_networks(networks.error().message);
        }
      }
      if (!authenticate.empty()) content["authenticate"] = authenticate;
      if (!content.empty()) add_policy(out.back().answer, content);
    }
    if (closed_.is_null()) return out;
    return {{{}, closed_}};
  }

 private:
  void refuse(const Directive& directive, const std::string& why) {
    note_(directive, fail(why + "; the route answers 403 instead"));
    if (closed_.is_null()) closed_ = closed_answer(403, directive.line, directive.text(), why);
  }
  void note_networks(const Result<void>& outcome) {
    for (const Directive* each : scope_.all("access")) note_(*each, outcome);
  }
  void refuse_networks(const std::string& why) {
    for (const Directive* each : scope_.all("access")) refuse(*each, why);
  }

  void add_policy(json& answer, const json& content) {
    answer["policies"].push_back(into_.policy(content.contains("authenticate") ? "members" : "networks", content));
  }

  void basic(json& authenticate) {
    const Directive* basic = scope_.one("auth_basic");
    const Directive* file = scope_.one("auth_basic_user_file");
    if (basic == nullptr || argument_of(*basic) == "off") {
      if (basic != nullptr) note_(*basic, {});
      if (file != nullptr) note_(*file, {});
      return;
    }
    if (file == nullptr) return refuse(*basic, "it has no auth_basic_user_file");
    const std::string path = argument_of(*file);
    const std::optional<std::string> text =
        into_.file && path.find('$') == std::string::npos ? into_.file(path) : std::nullopt;
    if (!text) {
      note_(*file, fail("the file cannot be read: its users become policies.authenticate.basic.users"));
      return refuse(*basic, "the users are not known");
    }
    std::string left;
    const Result<json> users = users_of(*text, left);
    if (!users) {
      note_(*file, users.error());
      return refuse(*basic, users.error().message);
    }
    note_(*file, left.empty() ? Result<void>() : fail("no hash that can be checked here: " + left));
    note_(*basic, {});
    authenticate["basic"]["users"] = *users;
    if (argument_of(*basic).find('$') == std::string::npos) authenticate["realm"] = argument_of(*basic);
  }

  void request(json& authenticate, const std::function<NginxQuestion(const std::string&)>& question) {
    const Directive* request = scope_.one("auth_request");
    if (request == nullptr || argument_of(*request) == "off") {
      if (request != nullptr) note_(*request, {});
      return;
    }
    if (!authenticate.empty()) return refuse(*request, "either users or a service says who a client is, not both");
    const NginxQuestion asked = question(argument_of(*request));
    if (asked.pool.empty()) return refuse(*request, "its location asks no backend, or sets fields of the question");
    note_(*request, {});
    authenticate["forward"] = {{"pool", asked.pool},
                               {"path", asked.path},
                               {"failure_status", 500},
                               {"to_client", json::array({"WWW-Authenticate"})}};
  }

  const NginxScope& scope_;
  Imported& into_;
  const NginxNote& note_;
  json closed_;  // null: nothing is left that protects
};

// PCRE's alternatives of plain words: ^(GET|HEAD)$
std::vector<std::string> words_of(std::string pattern) {
  if (!pattern.starts_with('^') || !pattern.ends_with('$')) return {};
  pattern = pattern.substr(1, pattern.size() - 2);
  if (pattern.starts_with('(') && pattern.ends_with(')')) {
    pattern = pattern.substr(1, pattern.size() - 2);
  } else if (pattern.find('|') != std::string::npos) {
    return {};
  }
  if (pattern.starts_with("?:")) pattern = pattern.substr(2);
  std::vector<std::string> words(1);
  for (const char c : pattern) {
    if (c == '|') {
      words.emplace_back();
    } else if (c >= 'A' && c <= 'Z') {
      words.back() += c;
    } else {
      return {};
    }
  }
  if (std::any_of(words.begin(), words.end(), [](const std::string& word) { return word.empty(); })) return {};
  return words;
}

}  // namespace

const Directives& NginxScope::all(const std::string& name) const {
  static const Directives kNone;
  const auto found = of.find(name);
  return found == of.end() ? kNone : found->second;
}

const Directive* NginxScope::one(const std::string& name) const {
  const Directives& found = all(name);
  return found.empty() ? nullptr : found.back();
}

std::string nginx_list_of(const std::string& name) { return name == "allow" || name == "deny" ? "access" : name; }

bool nginx_is_access(const std::string& name) {
  static const std::set<std::string> kAccess = {"allow",       "deny", "satisfy", "auth_basic", "auth_basic_user_file",
                                                "auth_request"};
  return kAccess.count(name) != 0;
}

bool nginx_guards(const Directive& directive) {
  const std::string& name = directive.name;
  static const std::set<std::string> kGuards = {
      "secure_link",     "secure_link_md5", "secure_link_secret", "modsecurity", "ModSecurityEnabled",
      "SecRulesEnabled", "CheckRule",       "auth_delay",         "js_access",   "perl",
      "geoip2_access",   "testcookie",      "app_protect_enable"};
  if (nginx_is_access(name) || name == "auth_delay" || name == "auth_request_set") return false;
  if (name == "modsecurity" || name == "auth_digest" || name == "testcookie" || name == "app_protect_enable")
    return argument_of(directive) != "off";
  // Modules of others: auth_jwt, auth_pam, auth_ldap, auth_gss, access_by_lua_block, rewrite_by_lua ...
  const bool module = name.starts_with("auth_") || name.starts_with("access_by_") || name.starts_with("rewrite_by_") ||
                      name.starts_with("server_rewrite_by_");
  return kGuards.count(name) != 0 || (module && argument_of(directive) != "off");
}

bool nginx_denies_all(const NginxScope& scope) { return scope.guards.empty() && denies_all(networks_of(scope)); }

Cases nginx_guarded(const NginxScope& scope, const json& normal, Imported& into,
                    const std::function<NginxQuestion(const std::string&)>& question, const NginxNote& note) {
  return Guard(scope, into, note).cases(normal, question);
}

bool nginx_is_harmless(const Directive& directive) {
  static const std::set<std::string> kHarmless = {
      "add_header", "expires", "access_log", "gzip", "etag", "log_not_found", "proxy_no_cache", "proxy_cache_bypass"};
  return std::all_of(directive.block.begin(), directive.block.end(),
                     [](const Directive& child) { return kHarmless.count(child.name) != 0; });
}

Result<NginxCondition> nginx_condition(const Directive& directive, bool underscores) {
  std::vector<std::string> words = directive.arguments;
  if (words.empty() || !words.front().starts_with('(') || !words.back().ends_with(')'))
    return fail("it has no condition");
  words.front().erase(0, 1);
  words.back().pop_back();
  std::erase(words, "");
  if (words.empty() || words.size() > 3) return fail("a route does not depend on it");
  const std::string variable = lower_case(words.front()), how = words.size() > 1 ? words[1] : "";
  std::string value = words.size() > 2 ? words[2] : "";
  NginxCondition out;
  out.negative = how.starts_with('!');
  const bool regex = how.ends_with('~') || how.ends_with("~*"), is_set = words.size() == 1;
  const bool plain = how == "=" || how == "!=";
  if (!regex && !plain && !is_set) return fail("a route does not depend on it");
  if (value.find('$') != std::string::npos && plain) return fail("a route does not compare two variables");
  // An empty value means that there is none.
  const bool empty = plain && value.empty();
  if (empty) out.negative = !out.negative;
  if (variable.starts_with("$http_") && variable != "$http_host") {
    std::string name = variable.substr(6);
    std::replace(name.begin(), name.end(), '_', '-');
    if (!http1::is_token(name) || is_framing_field(name)) return fail("a route does not look at this field");
    if (underscores) return fail("underscores_in_headers: two fields have this variable");
    // nginx has the first of several fields until 1.22, and then all as a list, which is what a route has. One that
    // refuses takes both.
    const bool ignore_case = how.ends_with('*');
    const Result<std::string> pattern = regex && out.negative ? whole_regex(value, ignore_case)
                                        : regex               ? listed_regex(value, ignore_case)
                                        : is_set              ? std::string("(?s)[^0]|..+")
                                        : empty               ? std::string("(?s).+")
                                        : !out.negative       ? "(?s)" + quoted_regex(value) + "(?:,.*)?"
                                        : value == "*"        ? quoted_regex(value)
                                                              : std::string();
    if (!pattern) return pattern.error();
    if (regex && !out.negative && Regex::compile(*pattern, kRegexMemoryBytes)->takes_whole(""))
      return fail("it takes requests without the field, too");
    if (pattern->empty()) {
      out.when.match["headers"][name] = value;
    } else {
      out.when.match["headers_regex"][name] = *pattern;
    }
    return out;
  }
  if (variable.starts_with("$arg_") || variable.starts_with("$cookie_"))
    return fail("nginx takes its name in upper and lower case, and a route as it is written");
  if (variable == "$request_method" && (plain || how.ends_with('~')) && !empty) {
    out.when.methods = plain ? std::vector<std::string>{value} : words_of(value);
    if (out.when.methods.empty()) return fail("a route has whole methods");
    return out;
  }
  if (variable == "$host" && plain && !empty) {
    if (value.find('*') != std::string::npos) return fail("it is no host");
    out.never = lower_case(value) != value;  // the variable is in lower case
    out.when.hosts = {value};
    return out;
  }
  if (variable == "$scheme" && plain && (value == "http" || value == "https")) {
    out.scheme = value;
    return out;
  }
  if ((variable == "$uri" || variable == "$document_uri") && !is_set && !empty) {
    if (!regex && !is_path_text(value)) return fail("a route's path has some of its characters as % escapes");
    const Result<std::string> whole = regex ? nginx_path_regex(value, how.ends_with('*')) : quoted_regex(value);
    if (!whole) return whole.error();
    out.when.match["path_regex"] = *whole;
    return out;
  }
  if (variable == "$remote_addr" && plain && IpAddress::parse(value) && IpAddress::parse(value)->to_string() == value) {
    out.when.match["clients"] = json::array({value});
    return out;
  }
  return fail("a route does not depend on it");
}

}  // namespace tidegate::cli
