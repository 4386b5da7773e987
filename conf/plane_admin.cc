// SPDX-License-Identifier: Apache-2.0
// A plane's admin socket: health, metrics, status, explain, and the candidates on which control asks it to vote.
#include <fmt/format.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "conf/plane_impl.h"
#include "core/log.h"
#include "core/metrics.h"
#include "core/process_metrics.h"

namespace tidegate {
namespace {

// Returns an answer with 400 if the query does not fit these parameters.
std::optional<HttpResponse> refused_query(const HttpRequest& request, const std::vector<QueryParameter>& known) {
  const std::optional<QueryFault> fault = check_query(request.query, known);
  if (!fault) return std::nullopt;
  return HttpResponse::problem(400, "Bad Request", fault->detail);
}

std::string pretty_text(const nlohmann::json& json) {
  return json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

}  // namespace

void Plane::Impl::answer_admin(const HttpExchangePtr& exchange) {
  const HttpRequest& request = exchange->request();
  // A request to the admin socket must never take the plane down, whatever its handler does.
  try {
    if (answer_common(exchange)) return;
    if (request.method == "GET" && request.path == "/alive") {
      // A control of an earlier release says nothing about its leader.
      if (const std::string_view hears = request.header("tidegate-hears-leader"); hooks.on_control && !hears.empty()) {
        hooks.on_control(hears == "yes");
      }
      exchange->respond(refused_query(request, {}).value_or(HttpResponse::json(200, pretty_text(alive()))));
    } else if (request.method == "GET" && request.path == "/status") {
      exchange->respond(refused_query(request, {}).value_or(HttpResponse::json(200, pretty_text(status()))));
    } else if (request.method == "GET" && request.path == "/explain" && hooks.explain) {
      exchange->respond(explain(request));
    } else if (request.path == "/candidate") {
      exchange->respond(candidate(request));
    } else if (request.path == "/upgrade") {
      upgrade.answer(exchange);
    } else if (!hooks.admin || !hooks.admin(exchange)) {
      exchange->respond(HttpResponse::problem(
          404, "Not Found", "here: /healthz, /alive, /status, /metrics, /explain, /candidate, /upgrade"));
    }
  } catch (const std::exception& error) {
    log_error("{} {} failed: {}", request.method, request.path, error.what());
    exchange->respond(HttpResponse::problem(500, "Internal Server Error", error.what()));
  }
}

bool Plane::Impl::answer_common(const HttpExchangePtr& exchange) const {
  const HttpRequest& request = exchange->request();
  if (request.method != "GET") return false;
  if (request.path != "/healthz" && request.path != "/metrics") return false;
  if (std::optional<HttpResponse> refusal = refused_query(request, {})) {
    exchange->respond(*std::move(refusal));
  } else if (request.path == "/healthz") {
    exchange->respond(health());
  } else {
    exchange->respond(HttpResponse::text(200, metrics_text(), "text/plain; version=0.0.4; charset=utf-8"));
  }
  return true;
}

HttpResponse Plane::Impl::health() const {
  if (draining) return HttpResponse::text(503, "draining\n");
  if (!ready) {
    const bool refuses = follower && !follower->refused().empty();
    return HttpResponse::text(503, "no version applied yet" + (refuses ? ": " + follower->refused() : "") + "\n");
  }
  const std::string warnings = hooks.warnings ? hooks.warnings() : std::string();
  if (hooks.works && !hooks.works()) return HttpResponse::text(503, warnings);
  return HttpResponse::text(200, "ok\n" + warnings);
}

std::string Plane::Impl::metrics_text() const {
  const std::string prefix = "tidegate_" + name;
  const StateHead applied = follower ? follower->applied() : StateHead{};
  std::string out = metrics().prometheus_text();
  const auto gauge = [&](std::string_view what, std::string_view help, uint64_t value) {
    out += fmt::format("# HELP {0}_{1} {2}\n# TYPE {0}_{1} gauge\n{0}_{1} {3}\n", prefix, what, help, value);
  };
  gauge("ready", "1 once a version is in force.", ready ? 1 : 0);
  gauge("config_version", "The version in force; 0 from a file.", applied.version);
  gauge("config_refused", "1 while the newest version is not in force.", follower && !follower->refused().empty());
  gauge("config_behind", "By how many versions the one in force is older than the newest, while that is refused.",
        follower && ready && follower->newest() > applied.version ? follower->newest() - applied.version : 0);
  gauge("unprobed_backends", "Backends that count as up because nobody probes them.", unprobed_backends);
  gauge("words_sequence", "Overrides and health verdicts in force: the sequence of their last change.",
        applied.live_state);
  gauge("purge_sequence", "The last purge applied.", applied.purge);
  gauge("kept_sockets", "Listening sockets that the service manager keeps for a process after a crash.", store.kept());
  gauge("taken_sockets", "Listening sockets of a crashed process that this one took over at its start.", store.taken());
  return out + upgrade.metrics_text(prefix) + process_metrics_text(prefix);
}

// What this host's control asks several times a second. All states but "up" come with a reason. "followed" says nothing
// about the plane: control asks again, and the process that follows answers.
nlohmann::json Plane::Impl::alive() const {
  const StateHead applied = follower ? follower->applied() : StateHead{};
  const std::string refused = follower ? follower->refused() : std::string();
  nlohmann::json json = {{"plane", name}, {"state", "up"}, {"version", applied.version}, {"words", applied.live_state}};
  const auto say = [&json](const char* state, std::string why) {
    while (!why.empty() && why.back() == '\n') why.pop_back();
    json["state"] = state;
    json["why"] = std::move(why);
    return json;
  };
  // The question waited at this process's socket while the other process took the path. The other process must answer
  // it.
  if (upgrade.followed()) return say("followed", "another process serves in its place");
  if (draining) return say("draining", "it is ending");
  if (!ready) return say("down", "no version applied yet" + (refused.empty() ? "" : ": " + refused));
  if (hooks.works && !hooks.works()) return say("down", hooks.warnings ? hooks.warnings() : "it does not work");
  if (!refused.empty() && follower->newest() != applied.version) {
    return say("draining", fmt::format("serves version {}, because it refuses {}", applied.version, refused));
  }
  return json;
}

nlohmann::json Plane::Impl::status() const {
  const std::shared_ptr<const Snapshot> snapshot = follower ? follower->current() : nullptr;
  const StateHead applied = follower ? follower->applied() : StateHead{};
  const bool refuses = follower && !follower->refused().empty();
  nlohmann::json json = {
      {"plane", name},
      {"node", node_name},
      {"pid", ::getpid()},
      {"ready", ready},
      {"version", applied.version},
      {"version_digest", snapshot ? snapshot->version_digest : ""},
      {"words", applied.live_state},
      {"purge", applied.purge},
      {"applied_at_ns", follower ? follower->applied_at_ns() : 0},
      {"digest", hooks.digest && ready ? hooks.digest() : ""},
      {"refused", refuses ? nlohmann::json(follower->refused()) : nlohmann::json(nullptr)},
      {"behind", ready && refuses && follower->newest() != applied.version},
      {"draining", draining},
      {"unprobed_backends", unprobed_backends},
  };
  if (manager.is_there()) json["kept_sockets"] = {{"taken", store.taken()}, {"kept", store.kept()}};
  if (metrics_server) json["metrics"] = metrics_server->tcp_endpoint().to_string();
  upgrade.add_status(json);
  if (hooks.add_status) hooks.add_status(json);
  return json;
}

HttpResponse Plane::Impl::explain(const HttpRequest& request) const {
  if (std::optional<HttpResponse> refusal = refused_query(request, hooks.explain_parameters))
    return *std::move(refusal);
  if (!ready) return HttpResponse::problem(503, "Service Unavailable", "no version applied yet");
  const Result<nlohmann::json> answer = hooks.explain(request);
  if (!answer) return HttpResponse::problem(400, "Bad Request", answer.error().message);
  return HttpResponse::json(200, pretty_text(*answer));
}

// GET says which candidate is held. POST prepares one and answers with the vote. DELETE releases one.
HttpResponse Plane::Impl::candidate(const HttpRequest& request) {
  const bool by_id = request.method == "DELETE";
  const std::vector<QueryParameter> id_only = {QueryParameter::number("id", "of the candidate")};
  if (auto refusal = refused_query(request, by_id ? id_only : std::vector<QueryParameter>{}))
    return *std::move(refusal);
  // The question waited at this process's socket while the other process took the path. So control asks again.
  if (upgrade.followed()) return HttpResponse::json(200, pretty_text({{"plane", name}, {"state", "followed"}}));
  if (!follower || draining) return HttpResponse::problem(503, "Service Unavailable", "the plane starts or ends");
  if (request.method == "POST") {
    const Result<CandidateVersion> told = decode_candidate(request.body);
    if (!told) return HttpResponse::problem(400, "Bad Request", told.error().message);
    return HttpResponse::json(200, encode_vote(follower->hold(*told)) + "\n");
  }
  if (by_id) follower->release(parse_number(request.parameter("id").value_or("")).value_or(0));
  if (request.method != "GET" && !by_id) {
    return HttpResponse::problem(405, "Method Not Allowed", "a candidate takes GET, POST and DELETE");
  }
  const nlohmann::json held = follower->held() == 0 ? nlohmann::json(nullptr) : nlohmann::json(follower->held());
  return HttpResponse::json(200, pretty_text({{"plane", name}, {"held", held}}));
}

}  // namespace tidegate
