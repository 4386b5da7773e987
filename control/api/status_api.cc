// SPDX-License-Identifier: Apache-2.0
#include "control/api/status_api.h"

#include "conf/model.h"
#include "control/api/parameters.h"
#include "control/health/forwarder_door.h"
#include "control/observe/certificate_troubles.h"
#include "core/clock.h"

namespace tidegate {

using nlohmann::json;

namespace {

// the longest `timeout` of a probe, plus time for the way
constexpr uint64_t kLongestProbeOrderMs = 5 * 60'000 + 1'000;

}  // namespace

void add_status_routes(RouteTable& table, HostState& host_state, Fleet& fleet, AppliedWaits& waits) {
  table.add({"GET",
             "/v1/status",
             Role::viewer,
             Effect::reads,
             "What every node and plane has applied, and which certificates are in trouble",
             {},
             {},
             [&fleet, &host_state](const ApiCall& call) {
               const std::shared_ptr<const Model> model = host_state.model();
               const auto now_s = static_cast<int64_t>(realtime_ns() / kNsPerS);
               json certificates = model ? certificate_troubles(*model, *host_state.live_state(), now_s) : json();
               fleet.status([call, certificates = std::move(certificates)](json status) {
                 if (!certificates.is_null()) status["certificates"] = certificates;
                 call.respond(HttpResponse::json(200, dump(status) + "\n"));
               });
             }});
  table.add({"POST",
             "/v1/status/wait",
             Role::viewer,
             Effect::reads,
             "Answer once all reachable planes have applied a version, words or a purge",
             {QueryParameter::number("version", "default: in force"),
              QueryParameter::number("words", "default: in force"), QueryParameter::number("purge", "default: 0"),
              QueryParameter::number("timeout", "milliseconds (10000)", 0, kMaxWaitMs)},
             {},
             [&host_state, &waits](const ApiCall& call) {
               const StateHead wanted{number_parameter(call, "version", host_state.head().version),
                                      number_parameter(call, "words", host_state.head().live_state),
                                      number_parameter(call, "purge", 0)};
               waits.answer_when_applied(call, wanted, number_parameter(call, "timeout", kDefaultWaitMs),
                                         json::object());
             }});
}

void add_node_routes(RouteTable& table, Fleet& fleet) {
  table.add({"GET",
             "/v1/node/status",
             Role::viewer,
             Effect::reads,
             "This host's control and planes",
             {},
             {},
             [&fleet](const ApiCall& call) {
               fleet.own_status([call](const Result<json>& status) {
                 if (!status) return call.respond(problem(502, "not_answered", status.error().message));
                 call.respond(HttpResponse::json(200, dump(*status) + "\n"));
               });
             }});
  // Only the fields that describe the body are passed on. Each connection has its own framing.
  const auto pass_on = [](const ApiCall& call, Result<HttpResponse> response) {
    if (!response) return call.respond(problem(502, "not_answered", response.error().message));
    HttpResponse answer{response->status, {}, std::move(response->body)};
    for (auto& [field, value] : response->headers) {
      if (http1::equals_ignore_case(field, "content-type")) answer.headers.emplace_back("Content-Type", value);
    }
    call.respond(std::move(answer));
  };
  const auto hand_on = [&fleet, pass_on](const char* path) {
    return [&fleet, pass_on, path](const ApiCall& call) {
      const std::string& plane = call.path.at("plane");
      if (plane != "l4" && plane != "l7" && plane != "dns") {
        return call.respond(problem(404, "no_such_plane", "the planes are l4, l7 and dns"));
      }
      const std::string& query = call.request().query;
      fleet.ask_own_plane(plane, path + (query.empty() ? "" : "?" + query),
                          [call, pass_on](Result<HttpResponse> response) { pass_on(call, std::move(response)); });
    };
  };
  ApiRoute explain = {"GET",
                      "/v1/node/explain/{plane}",
                      Role::viewer,
                      Effect::reads,
                      "What a plane of this host would do: its own explain, with its own parameters",
                      {},
                      {},
                      hand_on("/explain")};
  explain.any_query = true;
  table.add(std::move(explain));
  table.add({"GET",
             "/v1/node/metrics/{plane}",
             Role::viewer,
             Effect::reads,
             "Metrics of a plane of this host",
             {},
             {},
             hand_on("/metrics")});
  // An order contains its own time limit. The forwarder respects it, so nothing waits for longer.
  table.add({"POST",
             "/v1/node/probe",
             Role::replica,
             Effect::reads,
             "Have the forwarder of this host ask one of its backends for a VIP, and tell what came back",
             {},
             {"application/json"},
             [&fleet, pass_on](const ApiCall& call) {
               order_probe_here(fleet, call.request().body, kLongestProbeOrderMs,
                                [call, pass_on](Result<HttpResponse> response) { pass_on(call, std::move(response)); });
             }});
}

void add_own_probes_route(RouteTable& table, std::function<json()> seen) {
  table.add(
      {"GET",
       "/v1/node/probes",
       Role::viewer,
       Effect::reads,
       "What the probes of this host's control see while it hears no leader",
       {},
       {},
       [seen = std::move(seen)](const ApiCall& call) { call.respond(HttpResponse::json(200, dump(seen()) + "\n")); }});
}

}  // namespace tidegate
