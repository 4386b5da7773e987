// SPDX-License-Identifier: Apache-2.0
#include "control/acme/order_flow.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "control/acme/jws.h"
#include "control/api/json_bounds.h"
#include "control/limits.h"
#include "core/assert.h"
#include "core/crypto.h"

namespace tidegate::acme {

using nlohmann::json;

namespace {

constexpr uint64_t kFirstWaitMs = 100, kLongestWaitMs = 5'000, kMsPerS = 1'000;
constexpr uint64_t kRepeatAfterMs = 500;
constexpr const char* kEmptyObject = "{}";

json identifiers(const std::vector<std::string>& names) {
  json list = json::array();
  for (const std::string& name : names) list.push_back({{"type", "dns"}, {"value", name}});
  return list;
}

}  // namespace

OrderFlow::OrderFlow(Session& session, const SigningKey& account, const SigningKey& certificate_key, Wanted wanted)
    : session_(session), account_(account), certificate_key_(certificate_key), wanted_(std::move(wanted)) {
  TIDEGATE_ASSERT(!wanted_.names.empty(), "a certificate is ordered for a name");
}

Action OrderFlow::begin() {
  if (!session_.directory) return go(State::directory);
  return go(session_.account_url.empty() ? State::account : State::order);
}

Action OrderFlow::go(State state) {
  state_ = state;
  nonce_tries_ = 0;
  silences_ = 0;
  waited_ms_ = 0;
  next_wait_ms_ = kFirstWaitMs;
  return ask();
}

// The request for the present state.
Action OrderFlow::ask() {
  switch (state_) {
    case State::directory: {
      Action action;
      action.kind = Action::Kind::send;
      action.request = {Request::Method::get, wanted_.directory_url, {}};
      return action;
    }
    case State::account: {
      const Result<std::string> payload = account_payload();
      return payload ? post(session_.directory->new_account, *payload)
                     : fail_with(Failure::Kind::refused, payload.error().message);
    }
    case State::order: {
      json payload = {{"identifiers", identifiers(wanted_.names)}};
      if (!wanted_.replaces.empty()) payload["replaces"] = wanted_.replaces;
      return post(session_.directory->new_order, dump(payload));
    }
    case State::authorizations:
      return post(order_.authorizations[at_], "");
    case State::challenges:
      return post(pending_[at_].challenge_url, kEmptyObject);
    case State::poll_authorizations:
      return post(pending_[at_].authorization_url, "");
    case State::finalize: {
      const Result<std::string> request = certificate_key_.request_certificate(wanted_.names);
      if (!request) return fail_with(Failure::Kind::refused, request.error().message);
      return post(order_.finalize, dump({{"csr", base64url_encode(*request)}}));
    }
    case State::poll_order:
      return post(order_url_, "");
    case State::certificate:
      return post(certificate_url_, "");
    case State::publish:
    case State::over:
      break;
  }
  TIDEGATE_ASSERT(false, "a state that asks for something");
  return {};
}

Action OrderFlow::post(const std::string& url, const std::string& payload) {
  Action action;
  action.kind = Action::Kind::send;
  if (session_.nonce.empty()) {
    fetches_nonce_ = true;
    action.request = {Request::Method::head, session_.directory->new_nonce, {}};
    return action;
  }
  const JwsHead head{url, std::exchange(session_.nonce, {}),
                     state_ == State::account ? std::string() : session_.account_url};
  Result<std::string> body = sign_request(account_, head, payload);
  if (!body) return fail_with(Failure::Kind::refused, body.error().message);
  action.request = {Request::Method::post, url, *std::move(body)};
  return action;
}

Result<std::string> OrderFlow::account_payload() const {
  json payload = {{"termsOfServiceAgreed", true}};
  if (!wanted_.contact.empty()) payload["contact"] = wanted_.contact;
  if (!wanted_.eab_key_id.empty()) {
    Result<json> binding =
        external_binding(account_, wanted_.eab_key_id, wanted_.eab_key, session_.directory->new_account);
    if (!binding) return binding.error();
    payload["externalAccountBinding"] = *std::move(binding);
  } else if (session_.directory->external_account_required) {
    return fail("the authority asks for an account of its own: eab_key_id and eab_key are missing");
  }
  return dump(payload);
}

Action OrderFlow::wait(const std::optional<uint64_t>& retry_after_s) {
  Action action;
  action.kind = Action::Kind::wait;
  action.wait_ms = retry_after_s ? std::min(*retry_after_s * kMsPerS, kLongestAcmeWaitMs) : next_wait_ms_;
  action.wait_ms = std::max(action.wait_ms, kFirstWaitMs);
  next_wait_ms_ = std::min(2 * next_wait_ms_, kLongestWaitMs);
  waited_ms_ += action.wait_ms;
  if (waited_ms_ > kMaxAcmePollMs) {
    return fail_with(Failure::Kind::refused,
                     fmt::format("the authority did not decide within {} s", kMaxAcmePollMs / kMsPerS));
  }
  return action;
}

Action OrderFlow::fail_with(Failure::Kind kind, std::string why, uint64_t retry_after_s) {
  state_ = State::over;
  session_.directory.reset();
  session_.account_url.clear();
  session_.nonce.clear();
  Action action;
  action.kind = Action::Kind::failed;
  action.failure = {kind, std::move(why), retry_after_s};
  return action;
}

Action OrderFlow::repeat_later(const std::string& why) {
  if (++silences_ > kMaxAcmeRepeats) return fail_with(Failure::Kind::unreachable, why);
  session_.nonce.clear();
  Action action;
  action.kind = Action::Kind::wait;
  action.wait_ms = kRepeatAfterMs << silences_;
  return action;
}

Action OrderFlow::on_silence(const std::string& why) {
  fetches_nonce_ = false;
  return repeat_later(why);
}

Action OrderFlow::on_waited() { return ask(); }

Action OrderFlow::on_answer(const Answer& answer) {
  TIDEGATE_ASSERT(state_ != State::over && state_ != State::publish, "an answer belongs to a request");
  if (!answer.nonce.empty()) session_.nonce = answer.nonce;
  if (std::exchange(fetches_nonce_, false)) {
    if (answer.status >= 500) return repeat_later(fmt::format("the authority answered {}", answer.status));
    if (session_.nonce.empty()) return fail_with(Failure::Kind::refused, "the authority gave no nonce");
    return ask();
  }
  if (answer.status < 200 || answer.status >= 300) return take_problem(answer);
  return take(answer);
}

Action OrderFlow::take_problem(const Answer& answer) {
  const Problem problem = parse_problem(answer.status, answer.body);
  if (problem.type == "badNonce") {
    ++session_.rejected_nonces;
    if (++nonce_tries_ <= kMaxAcmeNonceTries) return ask();
  }
  if (answer.status >= 500) return repeat_later(sentence(problem));
  // RFC 9773 §5: if an authority does not accept the predecessor, the order is sent again without one.
  if (state_ == State::order && !wanted_.replaces.empty() &&
      (problem.type == "alreadyReplaced" || problem.type == "malformed")) {
    wanted_.replaces.clear();
    return go(State::order);
  }
  // The answer to a request that was sent twice: the authority had accepted the first one. Its result must be asked
  // for.
  if (silences_ > 0 && state_ == State::challenges) return go(State::poll_authorizations);
  if (silences_ > 0 && state_ == State::finalize) return go(State::poll_order);
  return fail_with(Failure::Kind::refused, sentence(problem), answer.retry_after_s.value_or(0));
}

Action OrderFlow::take(const Answer& answer) {
  switch (state_) {
    case State::directory: {
      Result<Directory> directory = parse_directory(answer.body);
      if (!directory) return fail_with(Failure::Kind::refused, directory.error().message);
      session_.directory = *std::move(directory);
      return go(session_.account_url.empty() ? State::account : State::order);
    }
    case State::account:
      return take_account(answer);
    case State::order:
      return take_order(answer);
    case State::authorizations:
      return take_authorization(answer);
    case State::challenges:
      return go(State::poll_authorizations);
    case State::poll_authorizations:
      return take_polled_authorization(answer);
    case State::finalize:
    case State::poll_order:
      return take_polled_order(answer);
    case State::certificate: {
      state_ = State::over;
      Action action;
      action.kind = Action::Kind::issued;
      action.chain_pem = answer.body;
      return action;
    }
    case State::publish:
    case State::over:
      break;
  }
  TIDEGATE_ASSERT(false, "a state that waits for an answer");
  return {};
}

Action OrderFlow::take_account(const Answer& answer) {
  if (!answer.location.starts_with("https://")) {
    return fail_with(Failure::Kind::refused, "the authority named no account");
  }
  session_.account_url = answer.location;
  return go(State::order);
}

Action OrderFlow::take_order(const Answer& answer) {
  Result<Order> order = parse_order(answer.body);
  if (!order) return fail_with(Failure::Kind::refused, order.error().message);
  if (!answer.location.starts_with("https://")) return fail_with(Failure::Kind::refused, "the order has no URL");
  order_ = *std::move(order);
  order_url_ = answer.location;
  switch (order_.status) {
    case OrderStatus::ready:
      return go(State::finalize);
    case OrderStatus::pending:
      if (order_.authorizations.empty()) break;
      at_ = 0;
      return go(State::authorizations);
    case OrderStatus::processing:
    case OrderStatus::valid:
    case OrderStatus::invalid:
      break;
  }
  return fail_with(Failure::Kind::refused, order_.error.empty() ? "the new order cannot be used" : order_.error);
}

const Challenge* OrderFlow::chosen(const Authorization& authorization) const {
  for (const Challenge& challenge : authorization.challenges) {
    if (challenge.type == wanted_.challenge) return &challenge;
  }
  return nullptr;
}

void OrderFlow::add_proof(const Authorization& authorization, const Challenge& challenge) {
  const std::string shown = key_authorization(challenge.token, account_);
  const Sha256 digest = sha256(shown);
  if (challenge.type == "http-01") {
    proofs_["http/" + challenge.token] = shown;
  } else if (challenge.type == "dns-01") {
    proofs_[fmt::format("dns/{}/{}", authorization.name, base64url_encode(text_of(digest)))] = "";
  } else {
    proofs_["alpn/" + authorization.name] = hex_encode(text_of(digest));
  }
}

Action OrderFlow::take_authorization(const Answer& answer) {
  const Result<Authorization> authorization = parse_authorization(answer.body);
  if (!authorization) return fail_with(Failure::Kind::refused, authorization.error().message);
  // Proofs are shown under this name, so it must be one of the ordered names.
  const std::string asked = (authorization->wildcard ? "*." : "") + authorization->name;
  if (std::find(wanted_.names.begin(), wanted_.names.end(), asked) == wanted_.names.end()) {
    return fail_with(Failure::Kind::refused, "an authorization is for a name that was not ordered");
  }
  if (authorization->status == AuthorizationStatus::invalid) {
    return fail_with(Failure::Kind::refused, fmt::format("the authorization of {} is invalid", asked));
  }
  if (authorization->status == AuthorizationStatus::pending) {
    const Challenge* challenge = chosen(*authorization);
    if (challenge == nullptr) {
      return fail_with(Failure::Kind::refused,
                       fmt::format("the authority offers no {} for {}", wanted_.challenge, asked));
    }
    add_proof(*authorization, *challenge);
    pending_.push_back({order_.authorizations[at_], challenge->url, asked});
  }
  if (++at_ < order_.authorizations.size()) return go(State::authorizations);
  if (pending_.empty()) return go(State::finalize);
  state_ = State::publish;
  Action action;
  action.kind = Action::Kind::publish;
  action.proofs = proofs_;
  return action;
}

Action OrderFlow::on_published() {
  TIDEGATE_ASSERT(state_ == State::publish, "proofs were to be published");
  at_ = 0;
  return go(State::challenges);
}

Action OrderFlow::take_polled_authorization(const Answer& answer) {
  const Result<Authorization> authorization = parse_authorization(answer.body);
  if (!authorization) return fail_with(Failure::Kind::refused, authorization.error().message);
  const std::string& name = pending_[at_].name;
  if (authorization->status == AuthorizationStatus::pending) return wait(answer.retry_after_s);
  if (authorization->status == AuthorizationStatus::invalid) {
    const Challenge* challenge = chosen(*authorization);
    const std::string why = challenge == nullptr ? "" : challenge->error;
    return fail_with(Failure::Kind::refused, fmt::format("{}: {}", name, why.empty() ? "refused" : why));
  }
  if (++at_ < pending_.size()) return go(State::challenges);
  return go(State::finalize);
}

Action OrderFlow::take_polled_order(const Answer& answer) {
  const Result<Order> order = parse_order(answer.body);
  if (!order) return fail_with(Failure::Kind::refused, order.error().message);
  switch (order->status) {
    case OrderStatus::valid:
      certificate_url_ = order->certificate;
      return go(State::certificate);
    case OrderStatus::invalid:
      return fail_with(Failure::Kind::refused, order->error.empty() ? "the order is invalid" : order->error);
    case OrderStatus::pending:
    case OrderStatus::ready:
    case OrderStatus::processing:
      break;
  }
  // The count of polls continues after the finalization.
  state_ = State::poll_order;
  nonce_tries_ = 0;
  silences_ = 0;
  return wait(answer.retry_after_s);
}

}  // namespace tidegate::acme
