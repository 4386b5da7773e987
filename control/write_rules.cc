#include "control/write_rules.h"

#include <fmt/format.h>

#include "control/json_bounds.h"
#include "control/problem.h"

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
    case ApplyOutcome::Status::failed:
      return "failed";
  }
  return "unknown";
}

bool lists_tag(std::string_view field, std::string_view tag) {
  bool found = false;
  http1::for_each_element(field, [&](std::string_view element) { found = found || element == tag; });
  return found;
}

}  // namespace

std::string entity_tag(const Manifest& manifest) {
  return manifest.version == 0 ? std::string() : '"' + manifest.digest + '"';
}

std::optional<HttpResponse> check_precondition(const HttpRequest& request, const Manifest& in_force) {
  const std::string_view if_match = request.header("if-match");
  const std::string_view if_none_match = request.header("if-none-match");
  const std::string tag = entity_tag(in_force);
  if (if_none_match == "*" && if_match.empty()) {
    if (in_force.version == 0) return std::nullopt;
    return problem(412, "already_configured", fmt::format("version {} is in force already", in_force.version));
  }
  if (if_match.empty()) {
    return problem(428, "precondition_required",
                   "a write needs If-Match with the ETag of the configuration it was based on, or If-Match: *");
  }
  if (if_match == "*" || (!tag.empty() && lists_tag(if_match, tag))) return std::nullopt;
  HttpResponse stale =
      problem(412, "stale", fmt::format("the configuration is at version {} by now; read it again", in_force.version));
  if (!tag.empty()) stale.headers.emplace_back("ETag", tag);
  return stale;
}

HttpResponse answer_write(const ApplyOutcome& outcome) {
  using Status = ApplyOutcome::Status;
  if (outcome.status == Status::invalid) return invalid_configuration(outcome.faults);
  if (outcome.status == Status::failed) {
    const bool lost_race = outcome.error.rfind("conflict", 0) == 0;
    return problem(lost_race ? 412 : 500, lost_race ? "stale" : "store_failed", outcome.error);
  }
  nlohmann::json changes = nlohmann::json::array();
  for (const ObjectChange& change : outcome.changes) {
    changes.push_back({{"change", name(change.change)}, {"kind", change.kind}, {"name", change.name}});
  }
  HttpResponse response = HttpResponse::json(200, dump({{"outcome", word(outcome.status)},
                                                        {"version", outcome.manifest.version},
                                                        {"digest", outcome.manifest.digest},
                                                        {"changes", std::move(changes)}}) +
                                                      "\n");
  const std::string tag = entity_tag(outcome.manifest);
  if (!tag.empty()) response.headers.emplace_back("ETag", tag);
  return response;
}

ApplyRequest apply_request(const ApiCall& call) {
  ApplyRequest request;
  request.who = call.who.name;
  request.comment = call.request().parameter("comment").value_or("");
  request.dry_run = call.flag("dry_run");
  request.answer = answer_kept_with<ApplyOutcome>(call.once, answer_write);
  return request;
}

std::vector<QueryParameter> write_parameters() {
  return {{"dry_run", "true: say what would change, change nothing"}, {"comment", "kept with the version"}};
}

}  // namespace tidegate
