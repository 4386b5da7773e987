// SPDX-License-Identifier: Apache-2.0
#include "control/cli/import/haproxy_rules.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "conf/route_checks.h"
#include "conf/text.h"
#include "core/http1.h"

namespace tidegate::cli {
namespace {

using nlohmann::json;
using Line = HaproxyLine;

constexpr size_t kSectionCasesMost = 2'048;  // of a section

// A text of HAProxy as one of policies.transform. Nothing: it has expressions that are not known here.
std::optional<std::string> haproxy_variables_of(const std::string& text) {
  std::string out;
  for (size_t at = 0; at < text.size(); ++at) {
    if (text[at] == '{' || text[at] == '}') out += text[at];
    if (text[at] != '%') {
      out += text[at];
      continue;
    }
    const size_t end = text.find(']', at);
    if (at + 1 >= text.size() || text[at + 1] != '[' || end == std::string::npos) return std::nullopt;
    const std::string what = text.substr(at + 2, end - at - 2);
    const size_t open = what.find('(');
    const std::string name = what.substr(0, open);
    const std::string argument =
        open != std::string::npos && what.ends_with(')') ? what.substr(open + 1, what.size() - open - 2) : "";
    if (what == "src") {
      out += "{client}";
    } else if (what == "method" || what == "path") {
      out += "{" + what + "}";
    } else if (what == "dst_port") {
      out += "{port}";
    } else if (http1::is_token(argument) && (name == "hdr" || name == "req.hdr" || name == "req.fhdr")) {
      out += lower_case(argument) == "host" ? "{authority}" : "{header." + lower_case(argument) + "}";
    } else if (http1::is_token(argument) && (name == "url_param" || name == "urlp")) {
      out += "{query." + argument + "}";
    } else {
      return std::nullopt;
    }
    at = end;
  }
  return out;
}

// The words before `if` or `unless`.
std::vector<std::string> words_of(const Line& line) {
  std::vector<std::string> words = line.words;
  words.erase(
      std::find_if(words.begin(), words.end(), [](const auto& word) { return word == "if" || word == "unless"; }),
      words.end());
  return words;
}

bool is_conditional(const Line& line) { return words_of(line).size() != line.words.size(); }

}  // namespace

bool HaproxyRules::has(const std::string& key) {
  static const std::set<std::string> kRules = {"tcp-request", "http-request", "http-response",   "block",
                                               "redirect",    "use_backend",  "default_backend", "monitor-uri"};
  return kRules.count(key) != 0;
}

void HaproxyRules::judge(const Line& line, const Result<void>& outcome) {
  if (judges_) into_.judge(line.number, line.text(), outcome);
}

Cases HaproxyRules::closed(const Line& line, const std::string& why, uint32_t status) {
  return {{{}, closed_answer(status, line.number, line.text(), why)}};
}

Cases HaproxyRules::cases(const HaproxySection& section, Cases last,
                          const std::function<Cases(const std::string&)>& backend, bool judges) {
  judges_ = judges;
  to_backend_ = to_client_ = json::array();
  // HAProxy asks these one after another, each in the order of the file.
  static const std::vector<std::set<std::string>> kStages = {
      {"monitor-uri"}, {"tcp-request"}, {"block", "http-request"}, {"redirect"}, {"use_backend"}, {"default_backend"}};
  Cases rest = std::move(last);
  const Line* refuses_responses = nullptr;
  std::string why;
  for (const Line& line : section.lines) {
    if (line.word(0) != "http-response") continue;
    const Result<Deed> deed = read_change(line);
    judge(line, deed ? Result<void>() : deed.error());
    if (!deed && line.word(1) != "capture" && !line.word(1).starts_with("set-") && !line.word(1).starts_with("del-") &&
        !line.word(1).starts_with("add-") && !line.word(1).starts_with("replace-")) {
      refuses_responses = &line;
      why = deed.error().message;
    }
  }
  for (size_t stage = kStages.size(); stage-- > 0;) {
    const Cases passed = rest;  // what comes behind the whole list
    for (size_t i = section.lines.size(); i-- > 0;) {
      const Line& line = section.lines[i];
      if (kStages[stage].count(line.word(0)) == 0) continue;
      rest = with_rule(line, std::move(rest), passed, backend);
      if (rest.size() > kSectionCasesMost) rest = closed(line, "its conditions would be too many routes", kNotServed);
    }
  }
  // It is for the responses of servers, whichever rule led to them.
  if (refuses_responses != nullptr) {
    for (Case& each : rest) {
      if (each.answer.contains("pool")) each.answer = closed(*refuses_responses, why, kClosed).front().answer;
    }
  }
  json transform = json::object();
  // The rules were read from the last one on.
  std::reverse(to_backend_.begin(), to_backend_.end());
  if (!to_backend_.empty()) transform["request_headers"] = to_backend_;
  if (!to_client_.empty()) transform["response_headers"] = to_client_;
  if (!transform.empty()) {
    const std::string policy = into_.policy("fields", {{"transform", transform}});
    for (Case& each : rest) {
      if (each.answer.contains("pool")) each.answer["policies"].push_back(policy);
    }
  }
  return rest;
}

Cases HaproxyRules::with_rule(const Line& line, Cases rest, const Cases& passed,
                              const std::function<Cases(const std::string&)>& backend) {
  if (HaproxyPriorities::is_rule(line)) return with_priority(line, std::move(rest));
  Result<Deed> deed = read(line);
  // Every client may come to each of the backends. Other rules keep somebody away, or let somebody past such a rule.
  std::vector<HaproxyWay> ways = lists_.ways(line, line.word(0) != "use_backend");
  if (line.word(0) == "monitor-uri") {
    HaproxyWay way;
    way.has.paths = {"=" + line.word(1)};
    ways = {way};
  }
  if (deed && (deed->kind == Deed::Kind::nothing || deed->kind == Deed::Kind::change)) {
    judge(line,
          deed->kind == Deed::Kind::change ? Result<void>() : fail("there is no counterpart; it decides nothing"));
    return rest;
  }
  Result<void> outcome;
  if (!deed) {
    outcome = deed.error();
    static const std::set<std::string> kChanges = {"set-header",  "add-header", "del-header",   "replace-header",
                                                   "set-path",    "set-uri",    "set-query",    "replace-path",
                                                   "replace-uri", "set-method", "replace-pathq"};
    if (line.word(0) == "http-request" && kChanges.count(line.word(1)) != 0) {
      judge(line, outcome);
      return rest;
    }
  }
  for (size_t i = ways.size(); i-- > 0;) {
    if (ways[i].rate) {
      outcome = fail(ways[i].unknown);
      continue;
    }
    rest = with_way(line, ways[i], deed ? *deed : Deed(), std::move(rest), passed, backend, outcome);
    if (rest.size() > kSectionCasesMost) break;
  }
  judge(line, outcome);
  return rest;
}

// A request that waits at another place is served as well, so nothing is closed for what cannot be said. The last rule
// that is met counts, and rules are read from the last one on.
Cases HaproxyRules::with_priority(const Line& line, Cases rest) {
  const Result<std::string> priority = HaproxyPriorities::read(line);
  Result<void> outcome = priority ? priorities_.keeps_order(line) : priority.error();
  const std::vector<HaproxyWay> ways = priority ? lists_.ways(line, false) : std::vector<HaproxyWay>();
  for (size_t i = ways.size(); i-- > 0;) {
    Result<Cases> with = with_priority(ways[i], *priority, rest);
    if (with && with->size() > kSectionCasesMost) with = fail("its conditions would be too many routes");
    if (with) {
      rest = *std::move(with);
    } else {
      outcome = with.error();
    }
  }
  judge(line, outcome);
  return rest;
}

Result<Cases> HaproxyRules::with_priority(const HaproxyWay& way, const std::string& priority, const Cases& rest) {
  if (!way.unknown.empty()) return fail(way.unknown);
  if (!way.users.empty()) return fail("users are asked for by http-request auth alone");
  Cases then = rest;
  for (Case& each : then) {
    if (each.answer.contains("pool")) each.answer.emplace("queue_priority", priority);
  }
  Cases out;
  for (const When& has_not : way.has_not) {
    const Result<std::optional<When>> exception = both(way.has, has_not);
    if (!exception) return exception.error();
    const Result<Cases> kept = *exception ? narrowed(rest, **exception) : Cases();
    if (!kept) return kept;
    out.insert(out.end(), kept->begin(), kept->end());
  }
  const Result<Cases> here = narrowed(then, way.has);
  if (!here) return here;
  out.insert(out.end(), here->begin(), here->end());
  if (!way.has.always()) out.insert(out.end(), rest.begin(), rest.end());
  return out;
}

Cases HaproxyRules::with_way(const Line& line, const HaproxyWay& way, const Deed& deed, Cases rest, const Cases& passed,
                             const std::function<Cases(const std::string&)>& backend, Result<void>& outcome) {
  const bool sends = deed.kind == Deed::Kind::backend || line.word(0) == "redirect" || line.word(0) == "use_backend";
  const uint32_t status = sends ? kNotServed : kClosed;
  const auto refuse = [&](const std::string& why) {
    outcome = fail(fmt::format("{}; its requests are answered by {} instead", why, status));
    return closed(line, why, status);
  };
  Cases then;
  if (deed.kind == Deed::Kind::nothing) {
    then = refuse(outcome ? "there is no such rule" : outcome.error().message);
  } else if (!way.unknown.empty()) {
    then = refuse(way.unknown);
  } else if (deed.kind == Deed::Kind::users) {
    const auto users = users_.find(way.users);
    if (users == users_.end() || users->second.empty()) {
      then = refuse("the list has no users whose passwords can be checked");
    } else {
      then = rest;
      json content = {{"authenticate", {{"basic", {{"users", users->second}}}}}};
      if (!deed.realm.empty()) content["authenticate"]["realm"] = deed.realm;
      for (Case& each : then) {
        if (!is_closed(each.answer)) each.answer["policies"].push_back(into_.policy("members", content));
      }
    }
  } else if (!way.users.empty()) {
    then = refuse("users are asked for by http-request auth alone");
  } else if (deed.kind == Deed::Kind::backend) {
    then = backend ? backend(deed.backend) : Cases();
    if (then.empty()) then = refuse(fmt::format("there is no pool '{}'", deed.backend));
  } else if (deed.kind == Deed::Kind::pass) {
    then = passed;
  } else {
    then = {{{}, deed.answer}};
  }
  // First those that an exception keeps from the rule, then the others that it is for, then the rest.
  Cases out;
  for (const When& has_not : way.has_not) {
    const Result<std::optional<When>> exception = both(way.has, has_not);
    const Result<Cases> kept = exception && *exception ? narrowed(rest, **exception) : Result<Cases>(Cases());
    if (!exception || !kept) {
      const Result<Cases> all = narrowed(refuse(exception ? kept.error().message : exception.error().message), way.has);
      rest.insert(rest.begin(), all->begin(), all->end());
      return rest;
    }
    out.insert(out.end(), kept->begin(), kept->end());
  }
  Result<Cases> here = narrowed(then, way.has);
  if (!here) here = narrowed(refuse(here.error().message), way.has);
  out.insert(out.end(), here->begin(), here->end());
  out.insert(out.end(), rest.begin(), rest.end());
  return out;
}

Result<HaproxyRules::Deed> HaproxyRules::read(const Line& line) {
  const std::string& key = line.word(0);
  Deed deed;
  if (key == "use_backend" || key == "default_backend") {
    deed.kind = Deed::Kind::backend;
    if (line.word(1).find('%') != std::string::npos) return fail("a backend is named, not computed");
    deed.backend = name_of(line.word(1));
    return deed;
  }
  deed.kind = Deed::Kind::answer;
  if (key == "block") return deed.answer = {{"status", kClosed}}, deed;
  if (key == "monitor-uri") {
    deed.answer = {{"status", 200}};
    if (!line.word(1).starts_with('/')) return fail("it is no path");
    return deed;
  }
  if (key == "redirect") return read_redirect(line, 0);
  if (key == "http-request") return read_request(line, 1);
  // tcp-request connection|content|session|inspect-delay
  if (line.word(1) == "inspect-delay") return Deed();
  return read_request(line, 2);
}

Result<HaproxyRules::Deed> HaproxyRules::read_request(const Line& line, size_t begin) {
  const std::string what = line.word(begin);
  Deed deed;
  deed.kind = Deed::Kind::answer;
  if (what == "deny" || what == "reject" || what == "tarpit" || what == "silent-drop") {
    std::optional<uint64_t> status = number_of(line.after("deny_status"));
    if (!status) status = number_of(line.after("status"));
    deed.answer = {{"status", std::clamp<uint64_t>(status.value_or(what == "tarpit" ? 500 : kClosed), 200, 599)}};
    return deed;
  }
  if (what == "allow" || what == "accept") {
    deed.kind = Deed::Kind::pass;
    return deed;
  }
  if (what == "redirect") return read_redirect(line, begin);
  if (what == "auth") {
    deed.kind = Deed::Kind::users;
    deed.realm = line.after("realm");
    return deed;
  }
  if (what == "return") {
    const std::optional<uint64_t> status = number_of(line.after("status"));
    deed.answer = {{"status", status.value_or(200)}};
    if (status && (*status < 200 || *status > 599)) return fail("this status cannot be an answer");
    if (line.has("file") || line.has("lf-string") || line.has("lf-file") || line.has("errorfile") || line.has("hdr"))
      return fail("an answer has a fixed text");
    if (const std::string text = line.after("string"); !text.empty()) deed.answer["body"] = text;
    return deed;
  }
  if (what == "set-header" || what == "add-header" || what == "del-header") return read_change(line);
  // They change nothing that decides.
  static const std::set<std::string> kNothing = {"set-var",          "unset-var",  "set-log-level", "set-mark",
                                                 "set-tos",          "set-nice",   "capture",       "strict-mode",
                                                 "disable-l7-retry", "set-timeout"};
  const std::string name = what.substr(0, what.find('('));
  if (kNothing.count(name) != 0 || name.starts_with("track-sc") || name.starts_with("sc-")) {
    deed.kind = Deed::Kind::nothing;
    return deed;
  }
  return fail("there is no such rule");
}

Result<HaproxyRules::Deed> HaproxyRules::read_redirect(const Line& line, size_t begin) {
  const std::string kind = line.word(begin + 1), value = line.word(begin + 2);
  if (value.find('%') != std::string::npos) return fail("a redirect has no such variables");
  Deed deed;
  deed.kind = Deed::Kind::answer;
  std::string to = value;
  if (kind == "scheme") {
    to = value + "://{authority}{path}";
  } else if (kind == "prefix") {
    to = value == "/" ? "{path}" : value + "{path}";
  } else if (kind != "location") {
    return fail("there is no such redirect");
  }
  if (to.empty()) return fail("it leads nowhere");
  if (line.has("drop-query") || line.has("append-slash") || line.has("set-cookie") || line.has("clear-cookie"))
    return fail("a redirect has no such options");
  deed.answer["redirect"] = to;
  if (const auto code = number_of(line.after("code")); code && *code != 302) deed.answer["status"] = *code;
  return deed;
}

// Of fields, for every request of the section.
Result<HaproxyRules::Deed> HaproxyRules::read_change(const Line& line) {
  const std::string& what = line.word(1);
  const bool request = line.word(0) == "http-request";
  if (what != "set-header" && what != "del-header" && what != "add-header") return fail("there is no such rule");
  const std::string name = lower_case(line.word(2));
  Deed deed;
  deed.kind = Deed::Kind::change;
  // The proxy sets these itself.
  if (request && what == "set-header" && (name == "x-forwarded-proto" || name == "x-forwarded-for")) return deed;
  if (is_conditional(line)) return fail("fields are changed for every request of a route");
  if (!http1::is_token(name)) return fail("no field is named");
  if (is_framing_field(name) || name == "host") return fail("the proxy frames each message itself");
  json& changes = request ? to_backend_ : to_client_;
  if (what == "del-header") {
    if (line.has("-m")) return fail("one field is removed, by its name");
    changes.push_back({{"remove", name}});
    return deed;
  }
  const std::optional<std::string> text = haproxy_variables_of(line.word(3));
  if (!text) {
    // Whoever reads the field believes the proxy, not the client.
    if (request) changes.push_back({{"remove", name}});
    return fail(request ? "there is no such variable; a client's own field is removed" : "there is no such variable");
  }
  changes.push_back({{what == "set-header" ? "set" : "add", name}, {"value", *text}});
  return deed;
}

}  // namespace tidegate::cli
