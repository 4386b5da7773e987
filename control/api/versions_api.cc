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
    std::optional<Manifest> manifest = find(call, call.path.at("version"));
    if (!manifest) return;
    const size_t elements = manifest->entries.size();
    long_calls_.answer_list(call, elements, [manifest = std::make_shared<Manifest>(*std::move(manifest))] {
      return HttpResponse::json(200, dump(to_json(*manifest, true)) + "\n");
    });
  }

  void diff(const ApiCall& call) {
    const uint64_t head = host_state_.manifest().version;
    const uint64_t to = number_parameter(call, "to", head);
    const uint64_t from = number_parameter(call, "from", to == 0 ? 0 : to - 1);
    std::optional<Manifest> before = find(call, std::to_string(from));
    if (!before) return;
    std::optional<Manifest> after = find(call, std::to_string(to));
    if (!after) return;
    const auto both = std::make_shared<std::pair<Manifest, Manifest>>(*std::move(before), *std::move(after));
    long_calls_.answer(call, [this, from, to, both] {
      const std::vector<ObjectChange> changes = compare(both->first.entries, both->second.entries);
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
    const std::optional<Manifest> manifest = find(call, std::to_string(to));
    if (!manifest) return;
    Change change;
    change.of_base = change.needs_precondition = false;
    change.examine = [this, manifest = *manifest](const Manifest&, const Plans* known) -> Examined {
      Result<Candidate> candidate = candidate_of(host_state_, manifest, known);
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
  // Returns the manifest, or sends 400 or 404. Version 0 is the empty one before the first.
  std::optional<Manifest> find(const ApiCall& call, const std::string& number_text) {
    const std::optional<uint64_t> number = parse_number(number_text);
    if (!number) {
      call.respond(problem(400, "bad_version", fmt::format("'{}' is not the number of a version", number_text)));
      return std::nullopt;
    }
    if (*number == 0) return Manifest{};
    Result<Manifest> manifest = host_state_.store().manifest(*number);
    if (manifest) return std::move(*manifest);
    call.respond(problem(404, "no_such_version", fmt::format("there is no version {}", *number)));
    return std::nullopt;
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
