// SPDX-License-Identifier: Apache-2.0
#include "control/api/versions_api.h"

#include <fmt/format.h>

#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "control/api/diff.h"
#include "control/api/parameters.h"
#include "control/api/shapes.h"
#include "control/api/write_rules.h"
#include "control/apply.h"
#include "control/limits.h"

namespace tidegate {

namespace {

using nlohmann::json;

constexpr uint64_t kDefaultListed = 100;

class VersionsApi {
 public:
  VersionsApi(HostState& host_state, LongCalls& long_calls) : host_state_(host_state), long_calls_(long_calls) {}

  void list(const ApiCall& call) {
    const Result<std::vector<Manifest>> versions =
        host_state_.store().list_versions(number_parameter(call, "limit", kDefaultListed));
    if (!versions) return call.respond(store_failure(versions.error()));
    json list = json::array();
    for (const Manifest& manifest : *versions) list.push_back(to_json(manifest, false));
    call.respond(HttpResponse::json(
        200, dump({{"in_force", host_state_.manifest().version}, {"versions", std::move(list)}}) + "\n"));
  }

  void get(const ApiCall& call) {
    const std::string& text = call.path.at("version");
    const std::optional<uint64_t> number = parse_number(text);
    if (!number) {
      return call.respond(problem(400, "bad_version", fmt::format("'{}' is not the number of a version", text)));
    }
    long_calls_.answer(call, [this, number = *number] {
      const Found found = find(number);
      return found.missing ? *found.missing : HttpResponse::json(200, dump(to_json(found.manifest, true)) + "\n");
    });
  }

  void diff(const ApiCall& call) {
    const uint64_t head = host_state_.manifest().version;
    const uint64_t to = number_parameter(call, "to", head);
    const uint64_t from = number_parameter(call, "from", to == 0 ? 0 : to - 1);
    long_calls_.answer(call, [this, from, to] {
      const Found before = find(from), after = find(to);
      if (before.missing) return *before.missing;
      if (after.missing) return *after.missing;
      const std::vector<ObjectChange> changes = compare(before.manifest.entries, after.manifest.entries);
      return HttpResponse::json(
          200, dump({{"from", from}, {"to", to}, {"changes", describe_changes(host_state_.store(), changes)}}) + "\n");
    });
  }

  void rollback(const ApiCall& call) {
    const std::optional<json> body = object_body(call, {"to", "comment"});
    if (!body) return;
    const uint64_t to = number_member(*body, "to");
    if (to == 0) return call.respond(problem(400, "bad_body", "\"to\" is the number of a version"));
    std::optional<std::string> comment = note_member(call, *body, "comment");
    if (!comment) return;
    Change change;
    change.of_base = change.needs_precondition = false;
    change.examine = [this, to](const Manifest&, const Plans* known) -> Examined {
      Found found = find(to);
      if (found.missing) return {std::move(found.missing), {}};
      Result<Candidate> candidate = candidate_of(host_state_, found.manifest, known);
      if (!candidate) return {store_failure(candidate.error()), {}};
      return {{}, *std::move(candidate)};
    };
    change.adjust = [to, comment = *comment](ApplyRequest& request) {
      request.rollback_of = to;
      if (request.comment.empty()) request.comment = comment;
      if (request.comment.empty()) request.comment = fmt::format("rollback to version {}", to);
    };
    long_calls_.change(call, std::move(change));
  }

  void audit(const ApiCall& call) {
    const Result<std::vector<AuditRecord>> records =
        host_state_.store().audit_newest(number_parameter(call, "limit", kDefaultListed));
    if (!records) return call.respond(store_failure(records.error()));
    json list = json::array();
    for (const AuditRecord& record : *records) list.push_back(to_json(record));
    call.respond(HttpResponse::json(200, dump({{"audit", std::move(list)}}) + "\n"));
  }

 private:
  struct Found {
    Manifest manifest;
    std::optional<HttpResponse> missing;  // 404 instead
  };
  // Version 0 is the empty one before the first. Any thread; of a large version it takes tens of milliseconds.
  Found find(uint64_t number) const {
    if (number == 0) return {};
    Result<Manifest> manifest = host_state_.store().manifest(number);
    if (manifest) return {std::move(*manifest), {}};
    return {{}, problem(404, "no_such_version", fmt::format("there is no version {}", number))};
  }

  HostState& host_state_;
  LongCalls& long_calls_;
};

}  // namespace

void add_version_routes(RouteTable& table, HostState& host_state, LongCalls& long_calls) {
  const auto api = std::make_shared<VersionsApi>(host_state, long_calls);
  const auto handler = [api](void (VersionsApi::*member)(const ApiCall&)) {
    return [api, member](const ApiCall& call) { (api.get()->*member)(call); };
  };
  const QueryParameter limit = QueryParameter::number("limit", "how many, newest first (100)", 1, kMaxListed);
  table.add({"GET",
             "/v1/versions",
             Role::viewer,
             Effect::reads,
             "The newest versions",
             {limit},
             {},
             handler(&VersionsApi::list)});
  table.add({"GET",
             "/v1/versions/{version}",
             Role::viewer,
             Effect::reads,
             "One version's manifest of objects",
             {},
             {},
             handler(&VersionsApi::get)});
  table.add({"GET",
             "/v1/diff",
             Role::viewer,
             Effect::reads,
             "What changed between two versions, object by object",
             {QueryParameter::number("from", "a version (default: the one before `to`; 0: nothing)"),
              QueryParameter::number("to", "a version (default: in force)")},
             {},
             handler(&VersionsApi::diff)});
  table.add({"POST",
             "/v1/rollback",
             Role::publisher,
             Effect::writes,
             "Bring a version's content back as a new version, certificates and zones included",
             write_parameters(),
             {"application/json"},
             handler(&VersionsApi::rollback)});
  table.add({"GET",
             "/v1/audit",
             Role::viewer,
             Effect::reads,
             "Who changed what, newest first",
             {limit},
             {},
             handler(&VersionsApi::audit)});
}

}  // namespace tidegate
