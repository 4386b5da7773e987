// SPDX-License-Identifier: Apache-2.0
// The step of a transaction that asks the policies, and what they add to the answer and to the log.
#include <fmt/format.h>

#include <algorithm>
#include <memory>

#include "conf/model/common.h"
#include "core/clock.h"
#include "l7/exchange/transaction.h"
#include "l7/policy/deadline.h"
#include "l7/policy/json_change.h"
#include "l7/policy/preflight.h"
#include "l7/worker.h"

namespace tidegate::l7 {

// A preflight takes the route of the request that it asks for, if a policy there answers it.
RouteMatch Transaction::match_preflight(std::string_view path) {
  const ClientFacts& facts = exchange_.facts;
  const RequestHead& request = exchange_.request;
  const Plan& plan = exchange_.plan->plan();
  const std::string_view wanted = request.fields.find(policy::kRequestMethod)->value;
  const RouteMatch match = match_route(wanted, path);
  const policy::Chain* const chain = plan.policies.chain(facts.listener, match.route);
  if (match.route != kNone && chain != nullptr && chain->answers_preflights) return match;
  return match_route(request.method, path);
}

void Transaction::find_policies(uint32_t route) {
  PolicyUse& use = exchange_.policies;
  use.chain = exchange_.plan->plan().policies.chain(exchange_.facts.listener, route);
  if (use.chain == nullptr) return;
  use.transaction = this;
  if (use.chain->forwards) exchange_.forwarding = use.chain;
  const size_t count = use.chain->rules.size();
  use.notes = reinterpret_cast<policy::Note*>(arena_.allocate_aligned(count * sizeof(policy::Note)));
  std::uninitialized_value_construct_n(use.notes, count);
}

Step Transaction::policies() {
  if (!worker_.log_enabled()) return ask_policies();
  Timing& timing = exchange_.timing;
  if (timing.policies_since_ns == 0) timing.policies_since_ns = worker_.loop().now_ns();
  const Step next = ask_policies();
  if (next != Step::suspend) timing.policies_ns += monotonic_ns() - std::exchange(timing.policies_since_ns, 0);
  return next;
}

Step Transaction::ask_policies() {
  if (exchange_.client_gone) return fail(Failure::client_gone);
  if (const Failure over = own_time_over(); over != Failure::none) return fail(over);
  PolicyUse& use = exchange_.policies;
  const uint64_t now_ns = worker_.loop().now_ns();
  for (; use.next < use.chain->rules.size(); ++use.next) {
    const policy::Rule& rule = *use.chain->rules[use.next];
    policy::Note& note = use.notes[use.next];
    if (note.wait_until_ns > now_ns) return Step::suspend;  // something else woke the transaction
    const policy::RuleDecision decision = rule.on_request(exchange_, arena_, note, now_ns);
    if (decision.waits) {
      wait_for_nothing();  // the call has its own time limit; the request's time continues
      return Step::suspend;
    }
    use.call.reset();
    if (decision.wait_until_ns != 0) {
      note.wait_until_ns = decision.wait_until_ns;
      wait_until_ns(decision.wait_until_ns);
      return Step::suspend;
    }
    if (note.wait_until_ns != 0) wait_for_nothing();
    note.verdict = decision.verdict;
    if (decision.verdict == policy::RuleVerdict::none) continue;
    rule.count(decision.verdict);
    if (decision.verdict >= policy::RuleVerdict::refused) return end_by_policy(decision);
  }
  return after_policies();
}

// The policy has refused or answered.
Step Transaction::end_by_policy(const policy::RuleDecision& decision) {
  if (decision.buffered) {
    // The policy has put a body into the answer buffer. It is sent at the client's speed.
    end_head_deadline();
    exchange_.outcome.status = exchange_.response.status = decision.status;
    exchange_.response.fields.clear();
    exchange_.response.fields.add_own("Content-Type", "content-type", decision.content_type, FieldKind::other);
    const size_t bytes = response_buffer_.bytes();
    const bool sends_body = bytes > 0 && !exchange_.request.is_head();
    if (!sends_body) response_buffer_.clear();
    const BodyKind body = sends_body ? BodyKind::known : BodyKind::none;
    offer_content(body, bytes);
    compose_answer_fields();
    send_answer_head({}, body, bytes, true);
    return Step::rest;
  }
  failure_detail_ = decision.detail;
  const Step step =
      decision.verdict == policy::RuleVerdict::refused ? fail(decision.failure) : answer_with(decision.status, {});
  if (decision.status != 0 && !exchange_.grpc) exchange_.outcome.status = decision.status;
  if (decision.body.empty() || exchange_.grpc) return step;
  exchange_.answer_body = decision.body;
  exchange_.response.fields.remove_named("content-type");
  exchange_.response.fields.add_own("Content-Type", "content-type", decision.content_type, FieldKind::other);
  return step;
}

Step Transaction::after_policies() {
  if (exchange_.route != nullptr) return take_route();
  // The match is looked up again for Allow, so only requests with a refused method pay for it.
  const ClientFacts& facts = exchange_.facts;
  const std::string_view path = path_for_routes(exchange_.request.path, facts.merge_slashes, arena_);
  return refuse_unrouted(match_route(exchange_.request.method, path));
}

// The first backend is about to be asked. The policies change the request that it gets. The client's request itself is
// not changed, because the cache's key, the log and the rules of the answer use it.
Failure Transaction::change_request() {
  const policy::Chain& chain = *std::exchange(exchange_.forwarding, nullptr);
  for (size_t i = 0; i < chain.rules.size(); ++i) {
    if (!chain.rules[i]->forwards()) continue;
    const policy::RuleDecision decision = chain.rules[i]->on_forward(exchange_, arena_);
    if (decision.verdict == policy::RuleVerdict::none) continue;
    if (exchange_.policies.notes != nullptr) exchange_.policies.notes[i].verdict = decision.verdict;
    chain.rules[i]->count(decision.verdict);
    if (decision.verdict != policy::RuleVerdict::refused) continue;
    failure_detail_ = decision.detail;
    return decision.failure;
  }
  if (exchange_.request_json == nullptr) return Failure::none;
  const bool has_bytes = exchange_.body_at_hand && request_buffer_.bytes() > 0;
  const bool has_body = has_bytes || exchange_.request_json->takes_empty();
  return has_body ? change_request_json() : Failure::none;
}

// The head for the client is complete, except for the changes by policies.
void Transaction::end_policies_of_answer() {
  const PolicyUse& use = exchange_.policies;
  for (size_t i = 0; i < use.chain->rules.size(); ++i) use.chain->rules[i]->on_answer(exchange_, arena_, use.notes[i]);
}

// The exchange is over.
void Transaction::end_policies(uint64_t now_ns) {
  const PolicyUse& use = exchange_.policies;
  for (size_t i = 0; i < use.chain->rules.size(); ++i) {
    if (use.notes[i].verdict != policy::RuleVerdict::none) use.chain->rules[i]->on_end(exchange_, use.notes[i], now_ns);
  }
}

// The time left of the client's deadline, as text for the policy's field. A shared fetch is not bound by the deadline
// of one client, so its backend gets none.
std::string_view Transaction::time_left() {
  const uint64_t deadline_ns = exchange_.timing.call_deadline_ns;
  if (exchange_.cache.fill || deadline_ns == UINT64_MAX) return {};
  const uint64_t left_ns = deadline_ns - std::min(worker_.loop().now_ns(), deadline_ns);
  // Rounded up, so that one second does not become zero on its way.
  const uint64_t unit_ns = exchange_.deadline->unit_ns;
  const fmt::format_int units((left_ns + unit_ns - 1) / unit_ns);
  return arena_.copy({units.data(), units.size()});
}

// "per-client.limit=passed,office.authorise=refused": every policy that was asked.
std::string_view Transaction::words_of_policies() {
  const PolicyUse& use = exchange_.policies;
  size_t bytes = 0;
  const auto each = [&use](auto with) {
    for (size_t i = 0; i < use.chain->rules.size(); ++i) {
      if (use.notes[i].verdict == policy::RuleVerdict::none) continue;
      const policy::Rule& rule = *use.chain->rules[i];
      for (const std::string_view part :
           {std::string_view(rule.policy), std::string_view("."), std::string_view(rule.kind), std::string_view("="),
            std::string_view(policy::name(use.notes[i].verdict)), std::string_view(",")}) {
        with(part);
      }
    }
  };
  each([&bytes](std::string_view part) { bytes += part.size(); });
  char* const text = arena_.allocate(bytes);
  char* end = text;
  each([&end](std::string_view part) { end = std::copy(part.begin(), part.end(), end); });
  return {text, bytes == 0 ? 0 : bytes - 1};
}

}  // namespace tidegate::l7
