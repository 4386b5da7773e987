// SPDX-License-Identifier: Apache-2.0
#include "control/cli/import/cases.h"

#include <fmt/format.h>

#include <algorithm>

#include "conf/limits.h"
#include "core/ip.h"
#include "core/regex.h"

namespace tidegate::cli {
namespace {

using nlohmann::json;

constexpr const char* kAllV4 = "0.0.0.0/0";
constexpr const char* kAllV6 = "::/0";

// Returns false if nothing is in both.
bool intersect(std::vector<std::string>& a, const std::vector<std::string>& b) {
  if (b.empty()) return true;
  if (a.empty()) return a = b, true;
  std::erase_if(a, [&](const std::string& each) { return std::find(b.begin(), b.end(), each) == b.end(); });
  return !a.empty();
}

// Returns false if no host has both.
bool intersect_hosts(std::vector<std::string>& a, const std::vector<std::string>& b) {
  if (b.empty()) return true;
  if (a.empty()) return a = b, true;
  std::vector<std::string> out;
  for (const std::string& left : a) {
    for (const std::string& right : b) {
      const std::string* narrow = host_covers(left, right) ? &right : host_covers(right, left) ? &left : nullptr;
      if (narrow != nullptr && std::find(out.begin(), out.end(), *narrow) == out.end()) out.push_back(*narrow);
    }
  }
  a = out;
  return !a.empty();
}

// The paths that both have; none: there are no such paths.
Result<std::vector<std::string>> both_paths(const std::string& a, const std::string& b) {
  using Paths = std::vector<std::string>;
  if (a == b) return Paths{a};
  constexpr std::string_view kOrder = "=^$~";
  if (kOrder.find(b.front()) < kOrder.find(a.front())) return both_paths(b, a);
  const std::string left = a.substr(1), right = b.substr(1);
  if (a.front() == '=') {
    const bool has = b.front() == '~'   ? Regex::compile(right, kRegexMemoryBytes)->takes_whole(left)
                     : b.front() == '^' ? left.starts_with(right)
                     : b.front() == '$' ? left.ends_with(right)
                                        : left == right;
    return has ? Paths{a} : Paths();
  }
  if (b.front() == '~') return fail("two conditions about the path");
  if (a.front() == b.front()) {
    const bool begins = a.front() == '^';
    if (begins ? left.starts_with(right) : left.ends_with(right)) return Paths{a};
    return (begins ? right.starts_with(left) : right.ends_with(left)) ? Paths{b} : Paths();
  }
  // A beginning and an end, also where they share bytes.
  Paths out = {"~(?s)" + quoted_regex(left) + ".*" + quoted_regex(right)};
  for (size_t shared = 1; shared <= std::min(left.size(), right.size()); ++shared) {
    if (left.ends_with(right.substr(0, shared))) out.push_back("=" + left + right.substr(shared));
  }
  return out;
}

// Returns false if no path has both.
Result<bool> intersect_paths(std::vector<std::string>& a, const std::vector<std::string>& b) {
  if (b.empty()) return true;
  if (a.empty()) return a = b, true;
  std::vector<std::string> out;
  for (const std::string& left : a) {
    for (const std::string& right : b) {
      const Result<std::vector<std::string>> together = both_paths(left, right);
      if (!together) return together.error();
      for (const std::string& path : *together) {
        if (std::find(out.begin(), out.end(), path) == out.end()) out.push_back(path);
      }
    }
  }
  a = out;
  return !a.empty();
}

std::string regex_of(const std::vector<std::string>& paths) {
  std::string out = "(?s)";
  for (const std::string& path : paths) {
    if (out.size() > 4) out += '|';
    const std::string text = path.substr(1);
    if (path.front() == '~') {
      out += "(?:" + text + ")";
    } else {
      out += (path.front() == '$' ? ".*" : "") + quoted_regex(text) + (path.front() == '^' ? ".*" : "");
    }
  }
  return out;
}

// A network of any spelling: an address, a network with bits behind its prefix, or "all".
std::vector<Cidr> networks_of(const std::string& text) {
  if (text == "all") return {*Cidr::parse(kAllV4), *Cidr::parse(kAllV6)};
  const size_t slash = text.find('/');
  const std::optional<IpAddress> address = IpAddress::parse(text.substr(0, slash));
  if (!address) return {};
  const std::optional<Cidr> alone = Cidr::parse(text.substr(0, slash));
  if (slash == std::string::npos) return {*alone};
  const std::optional<uint64_t> prefix = number_of(text.substr(slash + 1));
  if (!prefix || *prefix > alone->prefix) return {};
  return {Cidr::of(*address, static_cast<uint8_t>(*prefix))};
}

Result<std::string> compiled(std::string regex) {
  if (const Result<Regex> whole = Regex::compile(regex, kRegexMemoryBytes); !whole)
    return fail("RE2 does not take the regular expression: " + whole.error().message);
  return regex;
}

// For a path without parameters: only the cases that it meets, and without conditions about it.
Cases of_one_path(const Place& place, const Cases& cases) {
  if (place.path.find_first_of("*{") != std::string::npos) return cases;
  const auto takes = [&](const std::string& regex) {
    const Result<Regex> whole = Regex::compile(regex, kRegexMemoryBytes);
    return whole && whole->takes_whole(place.path);
  };
  Cases out;
  for (Case each : cases) {
    if (!each.when.paths.empty() && !takes(regex_of(each.when.paths))) continue;
    each.when.paths.clear();
    if (each.when.match.contains("path_regex")) {
      if (!takes(each.when.match["path_regex"].get<std::string>())) continue;
      each.when.match.erase("path_regex");
    }
    out.push_back(std::move(each));
  }
  return out;
}

struct Ordered {
  bool allow;
  Cidr network;
};

// Without what an earlier rule takes whole. So of two that overlap the longer is the earlier, as in `authorise`.
Result<std::vector<Ordered>> live_rules(const std::vector<NetworkRule>& rules) {
  std::vector<Ordered> live;
  for (const NetworkRule& rule : rules) {
    const std::vector<Cidr> networks = networks_of(rule.network);
    if (networks.empty()) return fail(fmt::format("'{}' is no network", rule.network));
    for (const Cidr& network : networks) {
      const bool dead = std::any_of(live.begin(), live.end(), [&](const Ordered& earlier) {
        return earlier.network.prefix <= network.prefix && earlier.network.contains(network.base);
      });
      if (!dead) live.push_back({rule.allow, network});
    }
  }
  return live;
}

}  // namespace

Result<std::optional<When>> both(const When& a, const When& b) {
  When out = a;
  if (!intersect(out.listeners, b.listeners) || !intersect(out.methods, b.methods) ||
      !intersect_hosts(out.hosts, b.hosts)) {
    return std::optional<When>();
  }
  const Result<bool> paths = intersect_paths(out.paths, b.paths);
  if (!paths) return paths.error();
  if (!*paths) return std::optional<When>();
  for (const auto& [kind, wanted] : b.match.items()) {
    if (!out.match.contains(kind)) {
      out.match[kind] = wanted;
    } else if (wanted.is_object()) {
      for (const auto& [name, value] : wanted.items()) {
        json& known = out.match[kind];
        if (known.contains(name) && known[name] != value) {
          if (kind == "headers" || kind == "query" || kind == "cookies") return std::optional<When>();
          return fail("two regular expressions about one thing");
        }
        known[name] = value;
      }
    } else if (out.match[kind] != wanted) {
      return fail("two conditions about one thing");
    }
  }
  return std::optional(std::move(out));
}

Result<Cases> narrowed(const Cases& cases, const When& when) {
  Cases out;
  for (const Case& each : cases) {
    const Result<std::optional<When>> together = both(each.when, when);
    if (!together) return together.error();
    if (*together) out.push_back({**together, each.answer});
  }
  return out;
}

Cases if_has(const When& when, const json& then, Cases others) {
  others.insert(others.begin(), {when, then});
  return others;
}

Result<Cases> if_has_not(const When& when, const json& then, const Cases& others) {
  Result<Cases> out = narrowed(others, when);
  if (!out) return out;
  // A route for GET takes HEAD too.
  const auto has = [&](const char* method) {
    return std::find(when.methods.begin(), when.methods.end(), method) != when.methods.end();
  };
  if (has("GET") && !has("HEAD")) {
    When head = when;
    head.methods = {"HEAD"};
    out->insert(out->begin(), {head, then});
  }
  out->push_back({{}, then});
  return out;
}

json closed_answer(uint32_t status, uint32_t line, const std::string& text, const std::string& why) {
  const std::string place = line == 0 ? "" : fmt::format("line {}: ", line);  // 0: of several
  return {{"status", status}, {"closed", fmt::format("{}{}: {}", place, text, why)}};
}

bool is_closed(const json& answer) { return answer.contains("closed"); }

std::map<std::string, Cases> by_host(const Cases& cases) {
  std::map<std::string, Cases> out = {{"", {}}};
  for (const Case& each : cases) {
    for (const std::string& host : each.when.hosts) out[host];
  }
  for (auto& [host, here] : out) {
    for (const Case& each : cases) {
      const std::vector<std::string>& hosts = each.when.hosts;
      const bool holds = hosts.empty() || std::any_of(hosts.begin(), hosts.end(), [&, &name = host](const auto& wide) {
                           return host_covers(wide, name);
                         });
      if (!holds) continue;
      here.push_back(each);
      here.back().when.hosts.clear();
      if (here.back().when.always()) break;
    }
  }
  return out;
}

void add_routes(Imported& into, const Place& place, const Cases& all, size_t lowest_priority) {
  Cases cases = of_one_path(place, all);
  const auto has_regex = [](const Case& each) {
    return !each.when.paths.empty() || each.when.match.contains("path_regex") ||
           each.when.match.contains("headers_regex") || each.when.match.contains("query_regex");
  };
  const auto regexes = static_cast<size_t>(std::count_if(cases.begin(), cases.end(), has_regex));
  if (!into.has_room_for_regexes(place.hosts, place.path, regexes)) {
    const std::string why = fmt::format("more than {} routes with regular expressions", kMaxRegexRoutes);
    cases = {{{}, closed_answer(kNotServed, 0, "the rules of this path", why)}};
  }
  size_t count = 0;
  while (count < cases.size() && !cases[count].when.always()) ++count;
  count = std::min(count + 1, cases.size());  // no request comes past a case without a condition
  for (size_t i = 0; i < count; ++i) {
    const When& when = cases[i].when;
    const std::string name = into.free_name("routes", place.name);
    json& route = into.object("routes", name);
    route["listeners"] = when.listeners.empty() ? place.listeners : when.listeners;
    const std::vector<std::string>& hosts = when.hosts.empty() ? place.hosts : when.hosts;
    if (!hosts.empty()) route["hosts"] = hosts;
    route["path"] = place.path;
    if (!when.methods.empty()) route["methods"] = when.methods;
    if (!when.match.empty()) route["match"] = when.match;
    if (!when.paths.empty()) route["match"]["path_regex"] = regex_of(when.paths);
    if (const size_t priority = lowest_priority + count - 1 - i; priority > 0) route["priority"] = priority;
    json answer = cases[i].answer;
    if (answer.contains("closed")) into.close(name, answer["closed"].get<std::string>());
    answer.erase("closed");
    route.update(answer);
    // What a cache would forget: it has one answer for all clients.
    for (const char* kind : {"headers", "headers_regex", "cookies", "clients"}) {
      if (when.match.contains(kind)) route.erase("cache");
    }
  }
}

Result<std::string> whole_regex(const std::string& pattern, bool ignore_case) {
  return compiled(fmt::format("(?s{}).*(?:{}).*", ignore_case ? "i" : "", pattern));
}

Result<std::string> listed_regex(const std::string& pattern, bool ignore_case) {
  // Anchors are those of one value. They can be said if they are the first and the last of all.
  std::string middle = pattern;
  const bool begins = middle.starts_with('^');
  if (begins) middle.erase(0, 1);
  const bool ends = middle.ends_with('$') && !middle.ends_with("\\$");
  if (ends) middle.pop_back();
  bool alternatives = false, anchors = false;
  size_t depth = 0;
  for (size_t at = 0; at < middle.size(); ++at) {
    const char c = middle[at];
    if (c == '\\') {
      ++at;
      anchors =
          anchors || (at < middle.size() && std::string_view("AzZGbB").find(middle[at]) != std::string_view::npos);
    } else if (c == '(') {
      ++depth;
    } else if (c == ')') {
      depth -= depth > 0 ? 1 : 0;
    } else if (c == '|') {
      alternatives = alternatives || depth == 0;
    } else if (c == '$' || (c == '^' && (at == 0 || middle[at - 1] != '['))) {
      anchors = true;
    }
  }
  if (anchors || (alternatives && (begins || ends)))
    return fail("a field is a list, and the anchors of the regular expression are those of one value");
  // What is between the values may be taken by the expression as well.
  return compiled(fmt::format("(?s{}){}(?:{}){}", ignore_case ? "i" : "", begins ? "(?:.*,\\s*)?" : ".*", middle,
                              ends ? "(?:\\s*,.*)?" : ".*"));
}

bool is_path_text(std::string_view text) {
  return std::none_of(text.begin(), text.end(), [](unsigned char c) {
    return c <= ' ' || c >= 0x7f ||
           std::string_view("?#%\"<>\\^`{|}").find(static_cast<char>(c)) != std::string_view::npos;
  });
}

Result<std::string> path_regex(const std::string& pattern, bool ignore_case) {
  // Of the characters that routes have as escapes some are signs of expressions, if no backslash is before them.
  const Result<std::string> escaped = fail("a route's path has some of its characters as % escapes");
  bool in_class = false;
  for (size_t at = 0; at < pattern.size(); ++at) {
    const auto c = static_cast<unsigned char>(pattern[at]);
    if (c == '\\') {
      const char next = at + 1 < pattern.size() ? pattern[++at] : '\\';
      // Letters that stand for spaces or for a character by its number, and characters themselves.
      if (std::string_view("sShHvVntrfae0xpPNQEc").find(next) != std::string_view::npos || !is_path_text({&next, 1}))
        return escaped;
      continue;
    }
    if (pattern.compare(at, 4, "(?P<") == 0) {
      at = std::min(pattern.find('>', at), pattern.size());
      continue;
    }
    if (c <= ' ' || c >= 0x7f || std::string_view("#%\"<>`").find(pattern[at]) != std::string_view::npos)
      return escaped;
    if (in_class) {
      if (std::string_view("?{}|").find(pattern[at]) != std::string_view::npos) return escaped;
      if (c == '[' && at + 1 < pattern.size() && pattern[at + 1] == ':') return escaped;  // [:space:]
      in_class = c != ']';
    } else if (c == '[') {
      in_class = true;
      if (at + 1 < pattern.size() && pattern[at + 1] == '^') ++at;
      if (at + 1 < pattern.size() && pattern[at + 1] == ']') ++at;  // the first one is a member
    }
  }
  return whole_regex(pattern, ignore_case);
}

bool host_covers(std::string_view wide, std::string_view narrow) {
  if (wide.empty() || wide == narrow) return true;
  return wide.starts_with("*.") && narrow.size() >= wide.size() && narrow.ends_with(wide.substr(1));
}

std::string quoted_regex(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (std::string_view("\\.+*?()|[]{}^$").find(c) != std::string_view::npos) out += '\\';
    out += c;
  }
  return out;
}

Result<json> authorise_by(const std::vector<NetworkRule>& rules) {
  const Result<std::vector<Ordered>> live = live_rules(rules);
  if (!live) return live.error();
  std::vector<std::string> allow, deny;
  for (const Ordered& rule : *live) (rule.allow ? allow : deny).push_back(rule.network.to_string());
  // With `allow` others may not come; here they may.
  const auto has = [&](const char* network) {
    return std::any_of(live->begin(), live->end(),
                       [&](const Ordered& r) { return r.network == *Cidr::parse(network); });
  };
  if (!allow.empty()) {
    for (const char* all : {kAllV4, kAllV6}) {
      if (!has(all)) allow.emplace_back(all);
    }
  }
  json out = json::object();
  if (!allow.empty()) out["allow"] = allow;
  if (!deny.empty()) out["deny"] = deny;
  return out;
}

Result<std::vector<std::string>> clients_of(const std::vector<NetworkRule>& rules) {
  const Result<std::vector<Ordered>> live = live_rules(rules);
  if (!live) return live.error();
  std::vector<std::string> clients;
  size_t everybody_else = 0;
  for (const Ordered& rule : *live) {
    if (rule.allow) {
      clients.push_back(rule.network.to_string());
    } else if (rule.network.prefix == 0) {
      ++everybody_else;
    } else {
      return fail("a route says whose requests it takes, not whose it does not");
    }
  }
  if (everybody_else != 2) return fail("a route says whose requests it takes, not whose it does not");
  return clients;
}

bool denies_all(const std::vector<NetworkRule>& rules) {
  const Result<std::vector<Ordered>> live = live_rules(rules);
  return live && !live->empty() && live->size() == 2 &&
         std::all_of(live->begin(), live->end(), [](const Ordered& r) { return !r.allow && r.network.prefix == 0; });
}

}  // namespace tidegate::cli
