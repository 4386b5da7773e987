// SPDX-License-Identifier: Apache-2.0
#include "control/api/write_rules.h"

#include <fmt/format.h>

#include <algorithm>

#include "conf/names.h"
#include "control/api/json_bounds.h"
#include "control/api/problem.h"
#include "control/limits.h"

namespace tidegate {

namespace {

const char* word(ApplyOutcome::Status status) {
  switch (status) {
    case ApplyOutcome::Status::committed:
      return "committed";
    case ApplyOutcome::Status::unchanged:
      return "unchanged";
    case ApplyOutcome::Status::dry_run:
      return "dry_run";
    case ApplyOutcome::Status::invalid:
      return "invalid";
    case ApplyOutcome::Status::refused:
      return "refused";
    case ApplyOutcome::Status::failed:
      return "failed";
  }
  return "unknown";
}

// Strong comparison (RFC 9110 §8.8.3.2): a weak tag never matches.
bool lists_version(std::string_view field, const Manifest& manifest) {
  bool found = false;
  http1::for_each_element(field, [&](std::string_view element) {
    if (element.size() < 2 || element.front() != '"' || element.back() != '"') return;
    const std::string_view inside = element.substr(1, element.size() - 2);
    found = found || inside.substr(0, inside.find('.')) == manifest.digest;
  });
  return found && manifest.version != 0;
}

bool is_there(const Manifest& manifest, const WriteTarget& target) {
  if (target.kind.empty()) return manifest.version != 0;
  const ManifestEntry wanted{target.kind, target.name, ""};
  const auto entry = std::lower_bound(manifest.entries.begin(), manifest.entries.end(), wanted);
  return entry != manifest.entries.end() && entry->kind == target.kind && entry->name == target.name;
}

}  // namespace

std::string entity_tag(const Manifest& manifest) {
  return manifest.version == 0 ? std::string() : '"' + manifest.digest + '"';
}

std::string entity_tag(const Manifest& manifest, std::string_view form, bool redacted) {
  return manifest.version == 0 ? std::string()
                               : fmt::format("\"{}.{}{}\"", manifest.digest, form, redacted ? ".redacted" : "");
}

bool is_unchanged(const HttpRequest& request, std::string_view tag) {
  bool listed = request.header("if-none-match") == "*";
  http1::for_each_element(request.header("if-none-match"), [&](std::string_view element) {
    if (element.starts_with("W/")) element.remove_prefix(2);
    listed = listed || element == tag;
  });
  return listed && !tag.empty();
}

std::optional<HttpResponse> check_precondition(const HttpRequest& request, const Manifest& in_force,
                                               const WriteTarget& target) {
  const std::string_view if_match = request.header("if-match");
  const std::string_view if_none_match = request.header("if-none-match");
  const auto refuse = [&](std::string_view code, const std::string& why) {
    HttpResponse refusal = problem(412, code, why);
    if (in_force.version != 0) refusal.headers.emplace_back("ETag", entity_tag(in_force));
    return refusal;
  };
  if (if_match.empty() && if_none_match != "*") {
    return problem(428, "precondition_required",
                   "a write needs If-Match with the ETag of the configuration it was based on, or If-Match: *; "
                   "If-None-Match: * writes only what is not there yet");
  }
  if (!if_match.empty() && if_match != "*" && !lists_version(if_match, in_force)) {
    return refuse("stale", fmt::format("the configuration is at version {} by now; read it again", in_force.version));
  }
  if (if_none_match == "*" && is_there(in_force, target)) {
    return target.kind.empty()
               ? refuse("already_configured", fmt::format("version {} is in force already", in_force.version))
               : refuse("already_there", fmt::format("{} has {} already, in version {}", target.kind,
                                                     in_quotes(target.name), in_force.version));
  }
  if (if_none_match != "*" && lists_version(if_none_match, in_force)) {
    return refuse("unchanged", fmt::format("If-None-Match names version {}, which is in force", in_force.version));
  }
  return std::nullopt;
}

HttpResponse answer_write(const ApplyOutcome& outcome) {
  using Status = ApplyOutcome::Status;
  if (outcome.status == Status::invalid) return invalid_configuration(outcome.faults);
  if (outcome.status == Status::refused) {
    const Voting& voting = outcome.voting;
    return refused_by_planes(voting.needs_only_restart ? "needs_restart" : "refused", voting.id, voting.reasons,
                             voting.votes);
  }
  if (outcome.status == Status::failed) {
    if (outcome.error.starts_with("conflict")) return problem(412, "stale", outcome.error);
    return store_failure(fail(outcome.error));
  }
  nlohmann::json changes = nlohmann::json::array();
  for (const ObjectChange& change : outcome.changes) {
    changes.push_back({{"change", name(change.change)}, {"kind", change.kind}, {"name", change.name}});
  }
  nlohmann::json body = {{"outcome", word(outcome.status)},
                         {"version", outcome.manifest.version},
                         {"digest", outcome.manifest.digest},
                         {"changes", std::move(changes)}};
  if (outcome.voting.id != 0) {
    body["candidate"] = outcome.voting.id;
    body["votes"] = outcome.voting.votes;
  }
  HttpResponse response = HttpResponse::json(200, dump(body) + "\n");
  const std::string tag = entity_tag(outcome.manifest);
  if (!tag.empty()) response.headers.emplace_back("ETag", tag);
  return response;
}

ApplyRequest apply_request(const ApiCall& call) {
  ApplyRequest request;
  request.who = call.who.name;
  request.comment = call.request().parameter("comment").value_or("");
  request.dry_run = call.flag("dry_run");
  request.allow_restart = call.flag("allow_restart");
  if (const auto confirm = call.request().parameter("confirm")) request.confirm_ms = parse_number(*confirm).value_or(0);
  request.require_all = call.flag("require_all");
  request.answer = answer_kept_with<ApplyOutcome>(call.once, answer_write);
  return request;
}

std::vector<QueryParameter> write_parameters() {
  return {QueryParameter::boolean("dry_run", "true: say what would change, change nothing"),
          {"comment", "kept with the version"},
          QueryParameter::boolean("allow_restart", "true: also commit what planes take up only when they start again"),
          QueryParameter::number("confirm",
                                 "milliseconds in which the version must be confirmed (POST /v1/confirm); otherwise "
                                 "the one before comes back",
                                 kShortestConfirmMs, kLongestConfirmMs),
          QueryParameter::boolean("require_all", "true: refuse the change too if a plane cannot be asked")};
}

}  // namespace tidegate
