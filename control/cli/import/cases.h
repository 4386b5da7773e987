// SPDX-License-Identifier: Apache-2.0
// Decisions in an order, as routes. Other programs ask one condition after another, and the first that holds decides.
// Routes of one host and path have priorities for that. Pure; one thread.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "control/cli/import/imported.h"

namespace tidegate::cli {

// What a request must have, all of it. An empty list means any.
struct When {
  std::vector<std::string> listeners, hosts, methods;
  std::vector<std::string>
      paths;  // "=/whole", "^/beginning" or "~" and a regular expression of the whole path; any of them
  nlohmann::json match = nlohmann::json::object();  // as of a route

  bool always() const {
    return listeners.empty() && hosts.empty() && methods.empty() && paths.empty() && match.empty();
  }
};
// Both together. An empty answer: no request has both. Error: a route cannot say it.
Result<std::optional<When>> both(const When& a, const When& b);

struct Case {
  When when;
  nlohmann::json answer;  // keys of a route that say what it does; "closed" has the reason why it refuses
};
using Cases = std::vector<Case>;  // the first that holds decides

// The cases for requests that have `when` too. Error: as both().
Result<Cases> narrowed(const Cases& cases, const When& when);
// `then` for requests that have `when`, and the cases for others.
Cases if_has(const When& when, const nlohmann::json& then, Cases others);
// `then` for requests that do not have `when`.
Result<Cases> if_has_not(const When& when, const nlohmann::json& then, const Cases& others);

// What a route answers that is closed, and one that has nobody to ask.
inline constexpr uint32_t kClosed = 403, kNotServed = 503;
// A fixed refusal in place of what could not be taken, so that no other route gets the requests.
nlohmann::json closed_answer(uint32_t status, uint32_t line, const std::string& text, const std::string& why);
bool is_closed(const nlohmann::json& answer);

// Where cases hold: at these listeners and hosts (none: any), for one path pattern.
struct Place {
  std::vector<std::string> listeners, hosts;
  std::string path, name;  // the name that its routes should have
};
// Makes the routes. The order of the cases holds within the place, so their hosts must not be in question: see below.
void add_routes(Imported& into, const Place& place, const Cases& cases, size_t lowest_priority = 0);
// The cases for each host that they name, and for any other ("").
std::map<std::string, Cases> by_host(const Cases& cases);

// A regular expression that takes a whole text where `pattern` (of PCRE) takes a part of it. Error: RE2 does not take
// it.
Result<std::string> whole_regex(const std::string& pattern, bool ignore_case);
std::string quoted_regex(std::string_view text);
// As whole_regex(), for one value of a list that has ", " between its values: some value of the list is taken.
Result<std::string> listed_regex(const std::string& pattern, bool ignore_case);
// As whole_regex(), of a path. Error also: routes have some of its characters as escapes, so it would take no path.
Result<std::string> path_regex(const std::string& pattern, bool ignore_case);
// Whether a route's path can have this text, and not as an escape.
bool is_path_text(std::string_view text);
// Whether a host pattern ("" is any) has all that another has.
bool host_covers(std::string_view wide, std::string_view narrow);

// Networks that are allowed and denied in an order, the first that has the client decides, as `authorise`, where the
// longest decides. What none has is allowed.
struct NetworkRule {
  bool allow = false;
  std::string network;  // of any spelling; "all"
};
Result<nlohmann::json> authorise_by(const std::vector<NetworkRule>& rules);
// Likewise, as `clients` of a route: all who are allowed. Error: a route cannot say it.
Result<std::vector<std::string>> clients_of(const std::vector<NetworkRule>& rules);
bool denies_all(const std::vector<NetworkRule>& rules);

}  // namespace tidegate::cli
