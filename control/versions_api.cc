#include "control/versions_api.h"

#include <fmt/format.h>

#include "control/apply.h"
#include "control/diff.h"
#include "control/parameters.h"
#include "control/shapes.h"
#include "control/write_rules.h"

namespace tidegate {

namespace {

using nlohmann::json;

constexpr uint64_t kDefaultListed = 100;
constexpr uint64_t kMaxListed = 1000;

class VersionsApi {
 public:
  explicit VersionsApi(Ledger& ledger) : ledger_(ledger) {}

  void list(const ApiCall& call) {
    const std::optional<uint64_t> limit = number_parameter(call, "limit", kDefaultListed);
    if (!limit) return;
    const Result<std::vector<Manifest>> versions = ledger_.store().list_versions(std::min(*limit, kMaxListed));
    if (!versions) return call.respond(problem(500, "store_failed", versions.error().message));
    json list = json::array();
    for (const Manifest& manifest : *versions) list.push_back(to_json(manifest, false));
    call.respond(HttpResponse::json(
        200, dump({{"in_force", ledger_.manifest().version}, {"versions", std::move(list)}}) + "\n"));
  }

  void get(const ApiCall& call) {
    const std::optional<Manifest> manifest = find(call, call.path.at("version"));
    if (manifest) call.respond(HttpResponse::json(200, dump(to_json(*manifest, true)) + "\n"));
  }

  void diff(const ApiCall& call) {
    const uint64_t head = ledger_.manifest().version;
    const std::optional<uint64_t> to = number_parameter(call, "to", head);
    if (!to) return;
    const std::optional<uint64_t> from = number_parameter(call, "from", *to == 0 ? 0 : *to - 1);
    if (!from) return;
    const std::optional<Manifest> before = find(call, std::to_string(*from));
    if (!before) return;
    const std::optional<Manifest> after = find(call, std::to_string(*to));
    if (!after) return;
    const std::vector<ObjectChange> changes = compare(before->entries, after->entries);
    call.respond(HttpResponse::json(
        200, dump({{"from", *from}, {"to", *to}, {"changes", describe_changes(ledger_.store(), changes)}}) + "\n"));
  }

  void rollback(const ApiCall& call) {
    const std::optional<json> body = object_body(call, {"to", "comment"});
    if (!body) return;
    const uint64_t to = number_member(*body, "to");
    if (to == 0) return call.respond(problem(400, "bad_body", "\"to\" is the number of a version"));
    std::optional<std::string> comment = note_member(call, *body, "comment");
    if (!comment) return;
    if (!call.request().header("if-match").empty()) {
      if (auto refusal = check_precondition(call.request(), ledger_.manifest()))
        return call.respond(std::move(*refusal));
    }
    if (!find(call, std::to_string(to))) return;
    ApplyRequest request = apply_request(call);
    if (request.comment.empty()) request.comment = *std::move(comment);
    call.respond(answer_write(roll_back(ledger_, to, std::move(request))));
  }

  void audit(const ApiCall& call) {
    const std::optional<uint64_t> limit = number_parameter(call, "limit", kDefaultListed);
    if (!limit) return;
    const Result<std::vector<AuditRecord>> records = ledger_.store().audit_newest(std::min(*limit, kMaxListed));
    if (!records) return call.respond(problem(500, "store_failed", records.error().message));
    json list = json::array();
    for (const AuditRecord& record : *records) list.push_back(to_json(record));
    call.respond(HttpResponse::json(200, dump({{"audit", std::move(list)}}) + "\n"));
  }

 private:
  // The manifest, or nothing after a 400 or 404. Version 0 is the empty one before the first.
  std::optional<Manifest> find(const ApiCall& call, const std::string& number_text) {
    const std::optional<uint64_t> number = parse_number(number_text);
    if (!number) {
      call.respond(problem(400, "bad_version", fmt::format("'{}' is not the number of a version", number_text)));
      return std::nullopt;
    }
    if (*number == 0) return Manifest{};
    Result<Manifest> manifest = ledger_.store().manifest(*number);
    if (manifest) return std::move(*manifest);
    call.respond(problem(404, "no_such_version", fmt::format("there is no version {}", *number)));
    return std::nullopt;
  }

  Ledger& ledger_;
};

}  // namespace

void add_version_routes(RouteTable& table, Ledger& ledger) {
  const auto api = std::make_shared<VersionsApi>(ledger);
  const auto handler = [api](void (VersionsApi::*member)(const ApiCall&)) {
    return [api, member](const ApiCall& call) { (api.get()->*member)(call); };
  };
  const QueryParameter limit = {"limit", "how many, newest first (100; at most 1000)"};
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
  table.add(
      {"GET",
       "/v1/diff",
       Role::viewer,
       Effect::reads,
       "What changed between two versions, object by object",
       {{"from", "a version (default: the one before `to`; 0: nothing)"}, {"to", "a version (default: in force)"}},
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
