// SPDX-License-Identifier: Apache-2.0
#include "control/api/candidates_api.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "control/api/parameters.h"

namespace tidegate {

namespace {

using nlohmann::json;

// Returns the number in the path, or sends 400.
std::optional<uint64_t> number_in_path(const ApiCall& call, const char* name) {
  const std::string& text = call.path.at(name);
  const std::optional<uint64_t> number = parse_number(text);
  if (!number) call.respond(problem(400, "bad_number", fmt::format("'{}' is not a number", text)));
  return number;
}

// For each plane: its vote on the version, and whether it serves this version or a later one.
json count_planes(uint64_t version, const json& voted, const json& status) {
  json planes = json::array();
  size_t prepared = 0, in_force = 0, asked = 0;
  for (const json& vote : voted.is_null() ? json::array() : voted.at("votes")) {
    if (string_member(vote, "vote") == "yes") ++prepared;
  }
  for (const json& node : status.at("nodes")) {
    for (const json& plane : node.value("planes", json::array())) {
      const bool serves = number_member(plane, "version") >= version;
      ++asked;
      in_force += serves ? 1 : 0;
      planes.push_back({{"node", string_member(node, "name")},
                        {"plane", string_member(plane, "plane")},
                        {"version", number_member(plane, "version")},
                        {"in_force", serves},
                        {"refused", plane.value("refused", json())}});
    }
    for (const json& plane : node.value("unreachable", json::array())) {
      ++asked;
      planes.push_back({{"node", string_member(node, "name")},
                        {"plane", string_member(plane, "plane")},
                        {"in_force", false},
                        {"refused", string_member(plane, "why")}});
    }
  }
  return {{"version", version},
          {"candidate", voted.is_null() ? json() : voted.at("candidate")},
          {"votes", voted.is_null() ? json() : voted.at("votes")},
          {"prepared", prepared},
          {"planes", std::move(planes)},
          {"asked", asked},
          {"in_force", in_force}};
}

}  // namespace

void add_candidate_routes(RouteTable& table, Candidates& candidates, HostState& host_state, Fleet& fleet) {
  table.add(
      {"GET",
       "/v1/candidates",
       Role::viewer,
       Effect::reads,
       "The candidate that is voted on, and the last ones that were refused, with each plane's reason",
       {},
       {},
       [&candidates](const ApiCall& call) { call.respond(HttpResponse::json(200, dump(candidates.list()) + "\n")); }});
  table.add({"GET",
             "/v1/candidates/{candidate}",
             Role::viewer,
             Effect::reads,
             "One of them",
             {},
             {},
             [&candidates](const ApiCall& call) {
               const std::optional<uint64_t> id = number_in_path(call, "candidate");
               if (!id) return;
               const json found = candidates.find(*id);
               if (!found.is_null()) return call.respond(HttpResponse::json(200, dump(found) + "\n"));
               call.respond(problem(404, "no_such_candidate", fmt::format("no candidate {} is remembered", *id)));
             }});
  table.add({"GET",
             "/v1/status/versions/{version}",
             Role::viewer,
             Effect::reads,
             "How the planes voted on a version, and which of them serve it or a later one",
             {},
             {},
             [&candidates, &host_state, &fleet](const ApiCall& call) {
               const std::optional<uint64_t> version = number_in_path(call, "version");
               if (!version) return;
               if (*version == 0 || *version > host_state.head().version) {
                 return call.respond(problem(404, "no_such_version", fmt::format("there is no version {}", *version)));
               }
               fleet.status([call, version = *version, voted = candidates.votes_on(*version)](const json& status) {
                 call.respond(HttpResponse::json(200, dump(count_planes(version, voted, status)) + "\n"));
               });
             }});
}

namespace {

HttpResponse not_provisional(uint64_t version) {
  return problem(409, "not_provisional",
                 fmt::format("version {} is not provisional: it was confirmed, or its time is over", version));
}

}  // namespace

void add_confirm_routes(RouteTable& table, HostState& host_state, ProvisionalVersions& provisionals,
                        std::function<void()> confirmed) {
  table.add({"GET",
             "/v1/confirm",
             Role::viewer,
             Effect::reads,
             "The version that is provisional, or null",
             {},
             {},
             [&provisionals](const ApiCall& call) {
               call.respond(HttpResponse::json(200, dump({{"provisional", provisionals.describe()}}) + "\n"));
             }});
  table.add({"POST",
             "/v1/confirm",
             Role::publisher,
             Effect::writes,
             "Confirm a provisional version: it stays",
             {},
             {"application/json"},
             [&host_state, &provisionals, confirmed = std::move(confirmed)](const ApiCall& call) {
               const std::optional<json> body = object_body(call, {"version"});
               if (!body) return;
               const uint64_t version = number_member(*body, "version");
               if (!provisionals.may_confirm(version)) return call.respond(not_provisional(version));
               const auto answer = [call, version] {
                 call.respond(HttpResponse::json(200, dump({{"confirmed", version}}) + "\n"));
               };
               if (!host_state.has_journal()) {
                 provisionals.confirm(version);
                 confirmed();
                 return answer();
               }
               // A confirmation is decided like every write. So no host reverts a confirmed version. A confirmation
               // comes too late only if the revert was decided first.
               host_state.decide<Result<void>>(
                   [&host_state, version, who = call.who.name] { return host_state.end_provisional(version, who); },
                   [&provisionals, call, version, answer](const Result<void>& decided) {
                     if (decided) {
                       provisionals.take_confirmation(version);
                       return answer();
                     }
                     const bool over = decided.error().message.starts_with("not_provisional");
                     call.respond(over ? not_provisional(version) : store_failure(decided.error()));
                   });
             }});
}

}  // namespace tidegate
