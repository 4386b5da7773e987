// SPDX-License-Identifier: Apache-2.0
// The mirror policy (conf/policy/mirror.h). The rule chooses the requests. The transaction sends the copy when it asks
// a backend for the first time (transaction_mirror.cc), so cache hits are not copied.
//
// A copy is an exchange without a client: no policy is asked, and nothing waits for it. It has its own bounds (`most`,
// `timeout`), is never tried again and never waits for room at a backend. A request without a client (a revalidation)
// is not copied. Runtime: MirrorRuntime, by policy.
#include "l7/policy/mirror.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <random>

#include "conf/model.h"
#include "conf/model/policy.h"
#include "conf/model/pool.h"
#include "conf/policy/mirror.h"
#include "core/clock.h"
#include "l7/exchange/exchange.h"
#include "l7/policy/kinds.h"

namespace tidegate::l7::policy {

const char* name(MirrorResult result) {
  constexpr const char* kNames[] = {"alike", "different", "failed", "unknown", "body", "busy"};
  static_assert(std::size(kNames) == static_cast<size_t>(MirrorResult::count_));
  return kNames[static_cast<size_t>(result)];
}

namespace {

class MirrorRule final : public Rule {
 public:
  MirrorRule(const MirrorPolicy& mirror, Compiling& out)
      : Rule(Stage::mirror, out.policy, "mirror", out.registry),
        pool_name_(out.model->pools[mirror.pool].name),
        percent_(mirror.percent),
        terms_{mirror.pool, mirror.most, mirror.timeout_ms * kNsPerMs,
               out.registry.get<MirrorRuntime>(fmt::format("{}/mirror/runtime", out.policy))} {}

  RuleDecision on_request(Exchange& exchange, Arena&, Note&, uint64_t) const override {
    if (exchange.route == nullptr || exchange.route->pool() == kNone || !is_chosen()) return {RuleVerdict::exempt};
    if (exchange.mirror_terms == nullptr) exchange.mirror_terms = &terms_;
    return {};
  }
  void on_answer(Exchange&, Arena&, const Note&) const override {}
  void explain(const Subject&, uint64_t, nlohmann::json& out) const override {
    out["pool"] = pool_name_;
    out["percent"] = percent_;
    out["in_flight"] = terms_.runtime->in_flight.load(std::memory_order_relaxed);
  }
  void add_samples(std::vector<Sample>& out) const override {
    for (size_t i = 0; i < static_cast<size_t>(MirrorResult::count_); ++i) {
      out.push_back({"tidegate_l7_mirror_requests_total", "counter",
                     "Requests that a policy has chosen to copy, and what came of it",
                     terms_.runtime->results[i].value(), "result", name(static_cast<MirrorResult>(i))});
    }
  }

 private:
  bool is_chosen() const {
    if (percent_ >= 100) return true;
    thread_local std::minstd_rand generator{std::random_device{}()};
    return std::uniform_real_distribution<double>(0, 100)(generator) < percent_;
  }

  const std::string pool_name_;
  const double percent_;
  const MirrorTerms terms_;
};

}  // namespace

void compile_mirror(const Policy& policy, Compiling& out) {
  out.rules.push_back(std::make_unique<MirrorRule>(*policy.part<MirrorPolicy>("mirror"), out));
}

}  // namespace tidegate::l7::policy
