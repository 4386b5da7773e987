// SPDX-License-Identifier: Apache-2.0
#include "control/api/api.h"

#include <fmt/format.h>

#include <algorithm>

#include "control/api/problem.h"
#include "control/limits.h"
#include "core/log.h"

namespace tidegate {

namespace {

// "application/json; charset=utf-8" -> "application/json", in lower case.
std::string media_type(std::string_view field) {
  std::string type(field.substr(0, field.find(';')));
  while (!type.empty() && (type.back() == ' ' || type.back() == '\t')) type.pop_back();
  std::transform(type.begin(), type.end(), type.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
  return type;
}

std::string join(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : ", ") + word;
  return text;
}

}  // namespace

void Api::refuse(const HttpExchangePtr& exchange, std::string_view code, HttpResponse response) {
  metrics()
      .counter("tidegate_control_api_refusals_total", "Calls refused before they reached a handler, by reason.",
               {{"code", std::string(code)}})
      .add();
  exchange->respond(std::move(response));
}

void Api::refuse(const HttpExchangePtr& exchange, int status, std::string_view code, std::string_view detail,
                 std::string_view allow) {
  HttpResponse response = problem(status, code, detail);
  if (!allow.empty()) response.headers.emplace_back("Allow", std::string(allow));
  refuse(exchange, code, std::move(response));
}

bool Api::check_parameters(const HttpExchangePtr& exchange, const ApiRoute& route) {
  if (route.any_query) return true;
  const std::optional<QueryFault> fault = check_query(exchange->request().query, route.query);
  if (!fault) return true;
  refuse(exchange, fault->code, bad_parameter(*fault));
  return false;
}

bool Api::check_body(const HttpExchangePtr& exchange, const ApiRoute& route) {
  const HttpRequest& request = exchange->request();
  if (route.accepts.empty()) {
    if (request.body.empty()) return true;
    refuse(exchange, 400, "unexpected_body", "this call takes no body");
    return false;
  }
  if (request.body.size() > route.body_bytes) {
    refuse(exchange, 413, "body_too_long", fmt::format("the body may have at most {} bytes", route.body_bytes));
    return false;
  }
  const std::string type = media_type(request.header("content-type"));
  if (std::find(route.accepts.begin(), route.accepts.end(), type) != route.accepts.end()) return true;
  refuse(exchange, 415, "unsupported_media_type",
         fmt::format("Content-Type is {}; accepted: {}", type.empty() ? "missing" : "'" + type + "'",
                     join(route.accepts)));
  return false;
}

bool Api::admit_once(ApiCall& call, const ApiRoute& route) {
  using Verdict = Idempotency::Verdict;
  const std::string_view key = call.request().header("idempotency-key");
  if (route.method != "POST" || route.effect != Effect::writes || key.empty()) return true;
  if (key.size() > kMaxIdempotencyKeyBytes) {
    refuse(call.exchange, 400, "bad_idempotency_key", "an Idempotency-Key has at most 255 characters");
    return false;
  }
  OnceOnly once = once_only(call.who, call.request(), key);
  Result<Idempotency::Lookup> earlier = idempotency_.begin(once);
  if (!earlier) {
    refuse(call.exchange, 500, "store_failed", earlier.error().message);
  } else if (earlier->verdict == Verdict::repeated) {
    call.respond(std::move(*earlier->answer));
  } else if (earlier->verdict == Verdict::under_way) {
    refuse(call.exchange, 409, "under_way", "the first request with this Idempotency-Key is still under way");
  } else if (earlier->verdict == Verdict::other_body) {
    refuse(call.exchange, 422, "key_reused", "this Idempotency-Key was used with another body");
  } else {
    call.exchange = remember_answer(call.exchange, idempotency_, once);
    call.once = std::move(once);
    return true;
  }
  return false;
}

void Api::dispatch(const HttpExchangePtr& exchange) {
  const HttpRequest& request = exchange->request();
  RouteTable::Found found = table_.find(request.method, request.path);
  const Role need = found.route ? found.route->role : Role::viewer;

  Principal who;
  if (need != Role::none) {
    Result<Principal> principal = auth_.identify(request);
    if (!principal) return refuse(exchange, 401, "unauthenticated", principal.error().message);
    who = std::move(*principal);
  }
  if (!found.route) {
    if (found.allow.empty()) {
      return refuse(exchange, 404, "no_such_path", fmt::format("there is no {}; see /v1/openapi.json", request.path));
    }
    return refuse(exchange, 405, "method_not_allowed",
                  fmt::format("{} takes {}, not {}", request.path, found.allow, request.method), found.allow);
  }
  if (!allows(who.role, need)) {
    return refuse(exchange, 403, "forbidden",
                  fmt::format("{} {} needs the role {}; {} has {}", request.method, found.route->pattern, name(need),
                              who.name, name(who.role)));
  }
  if (found.route->effect == Effect::writes && !leader_.empty()) {
    return refuse(exchange, 421, "not_the_leader", fmt::format("this control follows {}: write there", leader_));
  }
  if (found.route->effect == Effect::writes && refusal_) {
    if (std::optional<HttpResponse> refusal = refusal_()) {
      return refuse(exchange, refusal->status == 421 ? "not_the_leader" : "no_leader", *std::move(refusal));
    }
  }
  if (!check_parameters(exchange, *found.route) || !check_body(exchange, *found.route)) return;

  ApiCall call{exchange, std::move(who), std::move(found.path), std::nullopt};
  if (!admit_once(call, *found.route)) return;
  calls_.add();
  found.route->handler(call);
}

}  // namespace tidegate
