// SPDX-License-Identifier: Apache-2.0
#include "control/observe/explanation_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "control/api/json_bounds.h"

namespace tidegate {

namespace {

using nlohmann::json;

std::string join_by(const json& list, const char* member, const char* separator) {
  std::string text;
  if (!list.is_array()) return text;
  for (const json& element : list) {
    const std::string word = element.is_string() ? element.get<std::string>() : string_member(element, member);
    if (!word.empty()) text += (text.empty() ? "" : separator) + word;
  }
  return text;
}

std::string join(const json& list, const char* member) { return join_by(list, member, ", "); }

// Lists backends that get no new work: "proxy1 (down: connect refused)".
std::string left_out(const json& candidates, const char* member) {
  std::string text;
  if (!candidates.is_array()) return text;
  for (const json& candidate : candidates) {
    const std::string state = string_member(candidate, "state");
    if (state.empty() || state == "up") continue;
    const std::string why = string_member(candidate, "why");
    text += fmt::format("{}{} is {}{}{}", text.empty() ? "" : "; ", string_member(candidate, member), state,
                        why.empty() ? "" : ": ", why);
  }
  return text;
}

void add_reason(std::string& why, const std::string& more) {
  if (more.empty()) return;
  why += (why.empty() ? "" : "; ") + more;
}

// The steps through inner steers, in each plane's own words: "www (failover): ... > steer/eu is taken > ...". A single
// steer has already given its reason.
std::string nested_steps(const json& steps) {
  if (!steps.is_array()) return {};
  const auto steers =
      std::count_if(steps.begin(), steps.end(), [](const json& each) { return !string_member(each, "steer").empty(); });
  return steers > 1 ? join_by(steps, "text", " > ") : std::string();
}

ExplanationLine describe_dns(const json& step) {
  ExplanationLine line{"dns", "", "", ""};
  const std::string question = string_member(step, "name");
  const std::string answers = join(step.value("answers", json()), "address");
  line.what = answers.empty() ? fmt::format("has no address for {}", question)
                              : fmt::format("answers {} for {}", answers, question);
  if (const std::string vip = string_member(step, "vip"); !vip.empty()) line.what += fmt::format(" ({})", vip);
  line.why = string_member(step, "reason");
  const json geo = step.value("geo", json::object());
  if (line.why.empty() && !string_member(geo, "site").empty()) {
    line.why =
        fmt::format("the client's network is at {} ({})", string_member(geo, "site"), string_member(geo, "source"));
  }
  add_reason(line.why, nested_steps(step.value("steps", json())));
  add_reason(line.why, left_out(step.value("candidates", json()), "target"));
  return line;
}

ExplanationLine describe_l4(const json& step) {
  ExplanationLine line{"l4", "", "", ""};
  const std::string backend = string_member(step, "backend");
  const std::string decision = string_member(step, "decision");
  if (!backend.empty()) {
    line.what = fmt::format("forwards to {}", backend);
  } else if (decision == "refused") {
    line.what = "drops it";
  } else {
    const std::string eligible = join(step.value("eligible", json()), "backend");
    line.what =
        eligible.empty() ? "forwards to nobody" : fmt::format("forwards to one of {}, by the client's port", eligible);
  }
  if (!decision.empty()) line.what += fmt::format(" ({})", decision);
  line.why = string_member(step, "reason");
  add_reason(line.why, left_out(step.value("eligible", json()), "backend"));
  return line;
}

// Lists what only a real request can show.
void add_not_asked(const json& step, std::string& why) {
  const std::string text = join_by(step.value("not_asked", json()), "", "; ");
  if (!text.empty()) add_reason(why, "not asked: " + text);
}

ExplanationLine describe_l7(const json& step) {
  ExplanationLine line{"l7", "", "", ""};
  const std::string route = string_member(step, "route");
  line.what = route.empty() ? "has no route for it" : fmt::format("takes route {}", route);
  const json cache = step.value("cache", json::object());
  const std::string outcome = string_member(cache, "outcome");
  if (!outcome.empty()) {
    const auto age = cache.find("age_s");
    const bool aged = age != cache.end() && age->is_number();
    line.what += fmt::format(", cache {}{}", outcome, aged ? fmt::format(" ({} s old)", age->get<double>()) : "");
  }
  const json ends = step.value("ends", json());
  const std::string at = ends.is_object() ? string_member(ends, "at") : std::string();
  if (at == "head" || at == "policy" || at == "acme") {
    line.what = fmt::format("{} at {}", route.empty() ? "ends it" : fmt::format("takes route {} and ends it", route),
                            at == "head"     ? "its head"
                            : at == "policy" ? "policy " + string_member(ends, "policy")
                                             : "the " + at);
    if (const uint64_t status = number_member(ends, "status"); status != 0) line.what += fmt::format(", {}", status);
    line.why = string_member(step, "reason");
    add_not_asked(step, line.why);
    return line;
  }
  const std::string backend = string_member(step, "backend");
  const std::string pool = string_member(step, "pool");
  if (!backend.empty()) {
    line.what += fmt::format(", asks {} of pool {}", backend, pool);
  } else if (!pool.empty()) {
    const std::string eligible = join(step.value("eligible", json()), "backend");
    line.what += eligible.empty() ? fmt::format(", pool {} has nobody to ask", pool)
                                  : fmt::format(", asks one of {} ({})", eligible, string_member(step, "policy"));
  }
  line.why = string_member(step, "reason");
  add_reason(line.why, left_out(step.value("eligible", json()), "backend"));
  add_not_asked(step, line.why);
  return line;
}

// For a past request: the forwarder's present flow.
ExplanationLine describe_past_l4(const json& step) {
  ExplanationLine line{"l4", "", "", ""};
  const std::string vip = string_member(step, "vip");
  if (bool_member(step, "pinned")) {
    line.what = fmt::format("has the flow to {} pinned to {}", vip, string_member(step, "backend"));
    line.why = string_member(step, "reason");
    return line;
  }
  line.what = fmt::format("has no flow to {} of this connection: it has ended, or another forwarder had it", vip);
  const std::string backend = string_member(step, "backend");
  line.why = backend.empty()
                 ? string_member(step, "reason")
                 : fmt::format("today such a flow would go to {}: {}", backend, string_member(step, "reason"));
  return line;
}

// "per-client.limit passed, office.authorise refused": the policies that were asked.
std::string past_verdicts(const json& policies) {
  std::string text;
  if (!policies.is_array()) return text;
  for (const json& each : policies) {
    const std::string verdict = string_member(each, "verdict");
    if (verdict == "none") continue;
    text += fmt::format("{}{}.{} {}", text.empty() ? "" : ", ", string_member(each, "policy"),
                        string_member(each, "kind"), verdict.empty() ? "(not recorded)" : verdict);
  }
  return text;
}

ExplanationLine describe_past_l7(const json& step) {
  ExplanationLine line{"l7", "", "", ""};
  const std::string route = string_member(step, "route"), pool = string_member(step, "pool");
  const std::string backend = string_member(step, "backend");
  line.what = fmt::format("ended it at {} under version {}: {}", string_member(step, "ended"),
                          number_member(step, "version"), route.empty() ? "no route" : "route " + route);
  if (const std::string verdicts = past_verdicts(step.value("policies", json())); !verdicts.empty()) {
    line.what += fmt::format(", policies {}", verdicts);
  }
  const json cache = step.value("cache", json());
  if (cache.is_object()) line.what += fmt::format(", cache {}", string_member(cache, "outcome"));
  if (const std::string variant = string_member(step, "variant"); !variant.empty()) {
    line.what += fmt::format(", variant {}", variant);
  }
  if (!pool.empty()) line.what += fmt::format(", pool {}", pool);
  if (!backend.empty()) line.what += fmt::format(", backend {}", backend);
  if (number_member(step, "tries") > 1) line.what += fmt::format(" at try {}", number_member(step, "tries"));
  line.what += fmt::format(", status {}", number_member(step, "status"));
  line.why = string_member(step, "reason");
  const json failed = step.value("failed_tries", json());
  if (failed.is_array()) {
    for (const json& each : failed) {
      add_reason(line.why,
                 fmt::format("{} failed: {}", string_member(each, "backend"), string_member(each, "failure")));
    }
  }
  return line;
}

}  // namespace

ExplanationLine describe_step(const json& step) {
  const std::string plane = string_member(step, "plane");
  const bool past = bool_member(step, "past");
  ExplanationLine line{plane, "", "", ""};
  if (const std::string skipped = string_member(step, "skipped"); !skipped.empty()) {
    line.what = "has no part in it";
    line.why = skipped;
  } else if (const std::string error = string_member(step, "error"); !error.empty()) {
    line.what = "could not be asked";
    line.why = error;
  } else if (plane == "dns") {
    line = describe_dns(step);
  } else if (plane == "l4") {
    line = past ? describe_past_l4(step) : describe_l4(step);
  } else if (plane == "l7") {
    line = past ? describe_past_l7(step) : describe_l7(step);
  }
  line.node = string_member(step, "node");
  return line;
}

std::string describe_steps(const json& steps) {
  std::string text;
  for (const json& step : steps) {
    const ExplanationLine line = describe_step(step);
    text += fmt::format("{}{}{} {}", text.empty() ? "" : "; ", line.plane,
                        line.node.empty() ? "" : fmt::format(" on {}", line.node), line.what);
    if (!line.why.empty()) text += fmt::format(" [{}]", line.why);
  }
  return text;
}

}  // namespace tidegate
