// SPDX-License-Identifier: Apache-2.0
#include "control/cli/import/haproxy_condition.h"

#include <fmt/format.h>

#include <algorithm>

#include "conf/limits.h"
#include "conf/model/common.h"
#include "conf/route_checks.h"
#include "conf/text.h"
#include "core/http1.h"
#include "core/ip.h"
#include "core/regex.h"

namespace tidegate::cli {
namespace {

using nlohmann::json;

constexpr size_t kMaxWays = 256;  // of one condition

HaproxyList unknown(std::string why) {
  HaproxyList list;
  list.unknown = std::move(why);
  return list;
}
HaproxyList one(When when) {
  HaproxyList list;
  list.any.push_back(std::move(when));
  return list;
}

// "hdr_beg(host)" as name, way and argument.
struct Fetch {
  std::string name, how, argument;
};
Fetch fetch_of(const std::string& text) {
  Fetch out;
  const size_t open = text.find('(');
  out.name = text.substr(0, open);
  if (open != std::string::npos && text.ends_with(')')) out.argument = text.substr(open + 1, text.size() - open - 2);
  for (const char* how : {"_beg", "_end", "_sub", "_reg", "_dir", "_dom", "_len", "_str"}) {
    if (out.name.ends_with(how) && out.name != "ssl_fc_str") {
      out.how = how + 1;
      out.name.resize(out.name.size() - 4);
    }
  }
  return out;
}

// What HAProxy looks for in a text, as a regular expression of the whole. Error: there is no such way.
Result<std::string> regex_of(const std::string& how, const std::vector<std::string>& values, bool ignore_case) {
  std::string out;
  for (const std::string& value : values) {
    const std::string quoted = quoted_regex(value);
    if (!out.empty()) out += '|';
    if (how == "str" || how.empty()) {
      out += quoted;
    } else if (how == "beg") {
      out += quoted + ".*";
    } else if (how == "end") {
      out += ".*" + quoted;
    } else if (how == "sub") {
      out += ".*" + quoted + ".*";
    } else if (how == "dir") {
      out += "(?:.*/)?" + quoted + "(?:[/?].*)?";
    } else if (how == "dom") {
      out += "(?:.*[./?:@])?" + quoted + "(?:[./?:@].*)?";
    } else if (how == "reg") {
      out += ".*(?:" + value + ").*";
    } else {
      return fail(fmt::format("no route asks in the way '{}'", how));
    }
  }
  out = fmt::format("(?s{})(?:{})", ignore_case ? "i" : "", out);
  if (const Result<Regex> regex = Regex::compile(out, kRegexMemoryBytes); !regex)
    return fail("RE2 does not take the regular expression: " + regex.error().message);
  return out;
}

HaproxyList of_path(const std::string& how, const std::vector<std::string>& values, bool ignore_case) {
  When when;
  const bool plain =
      (how.empty() || how == "str" || how == "beg") && !ignore_case &&
      std::all_of(values.begin(), values.end(), [](const auto& value) { return value.starts_with('/'); });
  // HAProxy looks at the path as it was sent.
  for (const std::string& value : values) {
    if (value.find("//") != std::string::npos) return unknown("routes have several slashes as one");
    if (how != "reg" && !is_path_text(value)) return unknown("a route's path has some of its characters as % escapes");
    if (how != "reg") continue;
    if (const Result<std::string> regex = path_regex(value, ignore_case); !regex) return unknown(regex.error().message);
  }
  if (plain) {
    for (const std::string& value : values) when.paths.push_back((how == "beg" ? "^" : "=") + value);
    return one(when);
  }
  const Result<std::string> regex = regex_of(how, values, ignore_case);
  if (!regex) return unknown(regex.error().message);
  when.paths = {"~" + *regex};
  return one(when);
}

bool is_host(std::string_view text) {
  return !text.empty() && text.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789.-_") == std::string_view::npos;
}

HaproxyList of_host(const std::string& how, const std::vector<std::string>& values) {
  When when;
  for (const std::string& value : values) {
    const std::string host = lower_case(value);
    if ((how.empty() || how == "str") && is_host(host)) {
      when.hosts.push_back(host);
    } else if (how == "end" && host.starts_with('.') && is_host(host.substr(1))) {
      when.hosts.push_back("*" + host);
    } else {
      return unknown("a route has whole hosts, or all below one (hdr_end(host) .example.com)");
    }
  }
  return one(when);
}

HaproxyList of_field(const Fetch& fetch, const std::vector<std::string>& values, bool ignore_case) {
  const std::string name = lower_case(fetch.argument.substr(0, fetch.argument.find(',')));
  if (!http1::is_token(name)) return unknown("it names no field");
  if (name == "host" || is_framing_field(name)) return unknown("a route does not look at this field");
  When when;
  if (fetch.how == "found") {
    when.match["headers"][name] = "*";
    return one(when);
  }
  // A field is a list there, and one of its parts is enough.
  HaproxyList list;
  if (fetch.how == "reg") {
    for (const std::string& value : values) {
      const Result<std::string> regex = listed_regex(value, ignore_case);
      if (!regex) return unknown(regex.error().message);
      When each;
      each.match["headers_regex"][name] = *regex;
      list.any.push_back(each);
    }
  } else {
    const Result<std::string> regex = regex_of(fetch.how, values, ignore_case);
    if (!regex) return unknown(regex.error().message);
    when.match["headers_regex"][name] = fmt::format("(?s)(?:.*,\\s*)?(?:{})(?:\\s*,.*)?", *regex);
    list.any.push_back(when);
  }
  if (fetch.name.ends_with("fhdr")) list.inexact = "a route has the values of several fields as one list";
  return list;
}

}  // namespace

HaproxyList HaproxyLists::read(std::vector<std::string> words) const {
  if (words.empty()) return unknown("it asks for nothing");
  Fetch fetch = fetch_of(words.front());
  bool ignore_case = false;
  std::vector<std::string> values;
  for (size_t i = 1; i < words.size(); ++i) {
    if (!values.empty() || !words[i].starts_with('-') || words[i].size() == 1) {
      values.push_back(words[i]);
    } else if (words[i] == "-i") {
      ignore_case = true;
    } else if (words[i] == "-m" && i + 1 < words.size()) {
      fetch.how = words[++i];
    } else if (words[i] == "--") {
      continue;
    } else {
      return unknown(fmt::format("the values of {} are not in the file", words[i]));
    }
  }
  if (fetch.argument.find(',') != std::string::npos || words.front().find("),") != std::string::npos)
    return unknown("a value is not converted before it is compared");
  if (fetch.name == "always_true") return one({});
  if (fetch.name == "always_false") return {};
  if (fetch.name.find("rate") != std::string::npos || fetch.name.find("conn_cur") != std::string::npos ||
      fetch.name.starts_with("sc")) {
    HaproxyList list = unknown("how often a client comes is for the policy limit");
    list.rate = true;
    return list;
  }
  if (fetch.name == "http_auth" && values.empty()) {
    HaproxyList list;
    list.users = fetch.argument;
    return list;
  }
  const auto at = [](const std::vector<std::string>& listeners) {
    if (listeners.empty()) return HaproxyList{};
    When when;
    when.listeners = listeners;
    return one(when);
  };
  if (fetch.name == "ssl_fc" && (values.empty() || values == std::vector<std::string>{"1"})) return at(doors_.tls);
  if (fetch.name == "dst_port" && !values.empty()) {
    std::vector<std::string> listeners;
    for (const std::string& value : values) {
      const std::optional<uint64_t> port = number_of(value);
      if (!port) return unknown("it is no port");
      if (const auto known = doors_.by_port.find(*port); known != doors_.by_port.end())
        listeners.insert(listeners.end(), known->second.begin(), known->second.end());
    }
    return at(listeners);
  }
  const bool found = fetch.how == "found";
  if (values.empty() && !found) return unknown("it compares with nothing, or is not known");
  When when;
  if (fetch.name == "path") return found ? one({}) : of_path(fetch.how, values, ignore_case);
  if (fetch.name == "method" && !found) {
    when.methods = values;
    return one(when);
  }
  if (fetch.name == "src" && !found) {
    std::vector<NetworkRule> rules;
    for (const std::string& value : values) rules.push_back({true, value});
    rules.push_back({false, "all"});
    const Result<std::vector<std::string>> clients = clients_of(rules);
    if (!clients) return unknown(clients.error().message);
    when.match["clients"] = *clients;
    return one(when);
  }
  if (fetch.name == "hdr" || fetch.name == "req.hdr" || fetch.name == "req.fhdr" || fetch.name == "fhdr") {
    if (lower_case(fetch.argument) == "host" && !found) return of_host(fetch.how, values);
    return of_field(fetch, values, ignore_case);
  }
  if (fetch.name == "url_param" || fetch.name == "urlp") {
    const Result<std::string> regex = found ? std::string() : regex_of(fetch.how, values, ignore_case);
    if (!regex || fetch.argument.empty()) return unknown(regex ? "it names no parameter" : regex.error().message);
    when.match[found ? "query" : "query_regex"][fetch.argument] = found ? "*" : *regex;
    HaproxyList list = one(when);
    list.inexact =
        "HAProxy looks at each parameter of this name, and as it was sent: a route at the first one, decoded";
    return list;
  }
  if (fetch.name == "cook" || fetch.name == "req.cook") {
    if (fetch.argument.empty() || ignore_case || (!found && !fetch.how.empty() && fetch.how != "str"))
      return unknown("a route asks for one value of a cookie, or for any");
    if (found) values = {"*"};
    HaproxyList list;
    list.inexact = "HAProxy looks at each cookie of this name, and a route at the first one";
    for (const std::string& value : values) {
      When each;
      each.match["cookies"][fetch.argument] = value;
      list.any.push_back(each);
    }
    return list;
  }
  return unknown("a route does not depend on it");
}

const HaproxyList& HaproxyLists::named(const std::string& name) const {
  static const std::map<std::string, HaproxyList> kKnown = [] {
    std::map<std::string, HaproxyList> known;
    known["TRUE"] = one({});
    known["FALSE"] = {};
    for (const auto& [list, methods] : std::map<std::string, std::vector<std::string>>{{"METH_GET", {"GET", "HEAD"}},
                                                                                       {"METH_HEAD", {"HEAD"}},
                                                                                       {"METH_POST", {"POST"}},
                                                                                       {"METH_PUT", {"PUT"}},
                                                                                       {"METH_DELETE", {"DELETE"}},
                                                                                       {"METH_OPTIONS", {"OPTIONS"}}}) {
      When when;
      when.methods = methods;
      known[list] = one(when);
    }
    When local;
    local.match["clients"] = json::array({"127.0.0.0/8", "::1/128"});
    known["LOCALHOST"] = one(local);
    return known;
  }();
  static const HaproxyList kNone = unknown("there is no such list, or it is not taken");
  const auto own = lists_.find(name);
  if (own != lists_.end()) return own->second;
  const auto known = kKnown.find(name);
  return known == kKnown.end() ? kNone : known->second;
}

Result<void> HaproxyLists::add(const HaproxyLine& line) {
  std::vector<std::string> words(line.words.begin() + std::min<ptrdiff_t>(2, static_cast<ptrdiff_t>(line.words.size())),
                                 line.words.end());
  HaproxyList read_list = read(std::move(words));
  HaproxyList& list = lists_[line.word(1)];  // several lines of one name: any of them
  list.any.insert(list.any.end(), read_list.any.begin(), read_list.any.end());
  if (list.unknown.empty()) list.unknown = read_list.unknown;
  if (list.inexact.empty()) list.inexact = read_list.inexact;
  if (!read_list.users.empty()) list.users = read_list.users;
  list.rate = list.rate || read_list.rate;
  return read_list.unknown.empty() ? Result<void>() : fail(read_list.unknown);
}

std::vector<HaproxyWay> HaproxyLists::ways(const HaproxyLine& line, bool exact) const {
  const auto begin = std::find_if(line.words.begin(), line.words.end(),
                                  [](const std::string& word) { return word == "if" || word == "unless"; });
  if (begin == line.words.end()) return {HaproxyWay{}};
  const bool unless = *begin == "unless";
  // Read as alternatives of lists, each with its sign.
  std::vector<std::vector<std::pair<HaproxyList, bool>>> alternatives(1);
  for (auto word = begin + 1; word != line.words.end(); ++word) {
    std::string text = *word;
    if (text == "or" || text == "||") {
      alternatives.emplace_back();
      continue;
    }
    bool negative = false;
    while (text.starts_with('!')) negative = !negative, text.erase(0, 1);
    if (text.empty() && word + 1 != line.words.end()) text = *++word;  // "! name"
    if (text == "{") {
      const auto end = std::find(word, line.words.end(), "}");
      alternatives.back().emplace_back(read({word + 1, end}), negative);
      if (end == line.words.end()) break;
      word = end;
    } else {
      alternatives.back().emplace_back(named(text), negative);
    }
  }
  for (auto& alternative : alternatives) {
    for (auto& [list, negative] : alternative) {
      if (!exact || list.inexact.empty()) continue;
      const bool rate = list.rate;
      list = unknown(list.inexact);
      list.rate = rate;
    }
  }
  if (unless) {
    // Not one of several: each of the one alternative may fail. Of several all have to.
    if (alternatives.size() == 1 && alternatives.front().size() == 1) {
      alternatives.front().front().second = !alternatives.front().front().second;
    } else if (alternatives.size() == 1) {
      std::vector<std::vector<std::pair<HaproxyList, bool>>> each;
      for (auto& [list, negative] : alternatives.front()) each.push_back({{list, !negative}});
      alternatives = std::move(each);
    } else if (std::all_of(alternatives.begin(), alternatives.end(), [](const auto& a) { return a.size() == 1; })) {
      std::vector<std::pair<HaproxyList, bool>> all;
      for (auto& alternative : alternatives) all.emplace_back(alternative.front().first, !alternative.front().second);
      alternatives = {all};
    } else {
      alternatives = {{{unknown("write it with 'if'"), false}}};
    }
  }
  std::vector<HaproxyWay> out;
  for (const auto& alternative : alternatives) {
    std::vector<HaproxyWay> ways = {HaproxyWay{}};
    for (const auto& [list, negative] : alternative) {
      std::vector<HaproxyWay> next;
      for (const HaproxyWay& way : ways) {
        HaproxyWay more = way;
        if (!list.users.empty() && negative && more.users.empty()) {
          more.users = list.users;
        } else if (!list.users.empty() && more.unknown.empty()) {
          more.unknown = "users are asked for by http-request auth alone";
        }
        if (!list.unknown.empty() && more.unknown.empty()) more.unknown = list.unknown;
        more.rate = more.rate || list.rate;
        if (negative) {
          // What is known of a list that is not wholly known takes too few away, so the way is not too narrow.
          more.has_not.insert(more.has_not.end(), list.any.begin(), list.any.end());
          next.push_back(more);
          continue;
        }
        if (!list.unknown.empty() || !list.users.empty()) {
          next.push_back(more);
          continue;
        }
        for (const When& when : list.any) {
          const Result<std::optional<When>> together = both(way.has, when);
          HaproxyWay narrow = more;
          if (!together) {
            narrow.unknown = together.error().message;
            next.push_back(narrow);
          } else if (*together) {
            narrow.has = **together;
            next.push_back(narrow);
          }
        }
      }
      ways = std::move(next);
      if (ways.size() > kMaxWays) {
        HaproxyWay any;
        any.unknown = "it can be met in too many ways";
        ways = {any};
      }
    }
    out.insert(out.end(), ways.begin(), ways.end());
  }
  return out;
}

}  // namespace tidegate::cli
