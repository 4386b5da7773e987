// SPDX-License-Identifier: Apache-2.0
#include "control/api/purge_api.h"

#include "control/api/parameters.h"
#include "control/api/shapes.h"
#include "control/limits.h"

namespace tidegate {

namespace {

using nlohmann::json;

struct PurgeOrder {
  PurgeKind kind = PurgeKind::all;
  std::string value;
  bool soft = false;
};

// Takes exactly one of url, tag and all. An Error is a sentence.
Result<PurgeOrder> read_order(const json& body) {
  PurgeOrder order;
  size_t named = 0;
  for (const PurgeKind kind : {PurgeKind::url, PurgeKind::tag}) {
    const auto member = body.find(name(kind));
    if (member == body.end()) continue;
    if (!member->is_string() || member->get_ref<const std::string&>().empty()) {
      return fail(std::string(name(kind)) + " is not a string, or empty");
    }
    order.kind = kind;
    order.value = member->get<std::string>();
    ++named;
  }
  if (const auto all = body.find("all"); all != body.end()) {
    if (*all != true) return fail("\"all\" is only ever true");
    order.kind = PurgeKind::all;
    ++named;
  }
  if (const auto soft = body.find("soft"); soft != body.end()) {
    if (!soft->is_boolean()) return fail("\"soft\" is true or false");
    order.soft = soft->get<bool>();
  }
  if (named != 1) return fail("exactly one of \"url\", \"tag\" and \"all\" says what to purge");
  if (order.value.size() > kMaxPurgeValueBytes) return fail("the url or tag is longer than 8192 bytes");
  if (order.kind == PurgeKind::url && order.value.rfind("http://", 0) != 0 && order.value.rfind("https://", 0) != 0) {
    return fail("\"url\" is not absolute: http:// or https:// is missing");
  }
  return order;
}

json committed_answer(uint64_t sequence) { return {{"outcome", "committed"}, {"sequence", sequence}}; }

HttpResponse answer_with(const json& body) { return HttpResponse::json(200, dump(body) + "\n"); }

}  // namespace

void add_purge_routes(RouteTable& table, HostState& host_state, AppliedWaits& waits) {
  table.add({"POST",
             "/v1/purge",
             Role::operator_,
             Effect::writes,
             "Purge a URL, a tag or everything: {\"url\"|\"tag\"|\"all\":true, \"soft\"}",
             {QueryParameter::boolean("dry_run", "true: check the call, change nothing"),
              QueryParameter::boolean("wait", "true: answer when every reachable cache has done it"),
              QueryParameter::number("timeout", "of the waiting, in milliseconds (10000)", 0, kMaxWaitMs)},
             {"application/json"},
             [&host_state, &waits](const ApiCall& call) {
               const std::optional<json> body = object_body(call, {"url", "tag", "all", "soft"});
               if (!body) return;
               const Result<PurgeOrder> order = read_order(*body);
               if (!order) return call.respond(problem(400, "bad_body", order.error().message));
               if (call.flag("dry_run")) return call.respond(HttpResponse::json(200, "{\"outcome\":\"dry_run\"}\n"));
               const auto answer_to = answer_kept_with<uint64_t>(
                   call.once, [](uint64_t committed) { return answer_with(committed_answer(committed)); });
               host_state.decide<Result<uint64_t>>(
                   [&host_state, order = *order, who = call.who.name, answer_to] {
                     return host_state.add_purge(order.kind, order.value, order.soft, who, answer_to);
                   },
                   [&waits, call](const Result<uint64_t>& sequence) {
                     if (!sequence) return call.respond(store_failure(sequence.error()));
                     json answer = committed_answer(*sequence);
                     if (!call.flag("wait")) return call.respond(answer_with(answer));
                     waits.answer_when_applied(call, StateHead{0, 0, *sequence},
                                               number_parameter(call, "timeout", kDefaultWaitMs), std::move(answer));
                   });
             }});
}

}  // namespace tidegate
