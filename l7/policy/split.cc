// SPDX-License-Identifier: Apache-2.0
// The split policy (conf/policy/split.h): chooses one of several pools for a request, instead of the route's pool.
//
// By weight the choice is a weighted rendezvous: each variant has a number from a keyed hash of the request's key and
// the variant's name, in proportion to its weight, and the best one wins (Thaler and Ravishankar, 1998; with weights as
// in Schindelhauer and Schomaker, 2005). A change of weights moves as few requests as possible. Without `sticky` the
// key is a random number.
//
// The chosen variant is a branch in the cache (cache/message.h): each variant's answers are stored apart, under the one
// key of the URL. A request without a client is not split again: it keeps the choice of the client's request that it
// repeats. Runtime: VariantCount, by policy and variant.
#include "l7/policy/split.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <random>

#include "conf/model/policy.h"
#include "conf/policy/split.h"
#include "core/metrics.h"
#include "l7/exchange/exchange.h"
#include "l7/exchange/forwarding.h"
#include "l7/exchange/sticky.h"
#include "l7/name_ids.h"
#include "l7/policy/claims.h"
#include "l7/policy/kinds.h"
#include "l7/policy/names.h"
#include "l7/policy/request_key.h"

namespace tidegate::l7::policy {
namespace {

constexpr const char* kSplitKind = "split";

struct VariantCount final : Runtime {
  Counter requests;
};

struct CompiledVariant {
  SplitVariant config;
  std::optional<SplitCondition> when;
  std::string branch;
  std::shared_ptr<VariantCount> count;
  uint32_t number = 0;  // of its name, in NameIds
};

bool has_value(const std::vector<std::string>& wanted, std::string_view value) {
  return wanted.empty() ? !value.empty() : std::find(wanted.begin(), wanted.end(), value) != wanted.end();
}

class SplitRule final : public Rule {
 public:
  SplitRule(const SplitPolicy& split, Compiling& out)
      : Rule(Stage::split, out.policy, kSplitKind, out.registry),
        hash_key_(out.key),
        sticky_words_(split.sticky),
        sticky_(out.content.split->sticky, 32, 64, out) {
    for (size_t i = 0; i < split.variants.size(); ++i) {
      const SplitVariant& variant = split.variants[i];
      const std::string key = fmt::format("{}/{}/{}", out.policy, kSplitKind, variant.name);
      variants_.push_back({variant, out.content.split->when[i], fmt::format("{}/{}", out.policy, variant.name),
                           out.registry.get<VariantCount>(key)});
    }
  }

  RuleDecision on_request(Exchange& exchange, Arena& arena, Note&, uint64_t) const override {
    if (exchange.split_pool != kNone || exchange.route == nullptr || exchange.route->pool() == kNone) {
      return {RuleVerdict::exempt};
    }
    const Subject subject = subject_of(exchange);
    const CompiledVariant* chosen = named_by(subject, exchange.policies.identity.claims, arena);
    if (chosen == nullptr) chosen = &by_weight(sticky_words_.empty() ? random_key() : key_of(subject, arena));
    chosen->count->requests.add();
    exchange.split_pool = chosen->config.pool;
    exchange.variant = chosen->config.name;
    exchange.variant_number = chosen->number;
    exchange.branch = chosen->branch;
    return {};
  }
  void on_answer(Exchange& exchange, Arena& arena, const Note&) const override {
    const CompiledVariant* const chosen = chosen_for(exchange);
    if (chosen != nullptr) apply_edits(chosen->config.response_headers, exchange.response.fields, arena);
  }
  bool forwards() const override {
    return std::any_of(variants_.begin(), variants_.end(),
                       [](const CompiledVariant& each) { return !each.config.request_headers.empty(); });
  }
  RuleDecision on_forward(Exchange& exchange, Arena& arena) const override {
    const CompiledVariant* const chosen = chosen_for(exchange);
    if (chosen == nullptr || chosen->config.request_headers.empty()) return {RuleVerdict::none};
    const RequestHead& from = exchange.outgoing == nullptr ? exchange.request : *exchange.outgoing;
    exchange.outgoing = new (arena.allocate_aligned(sizeof(RequestHead))) RequestHead(from);
    for (const auto& [name, value] : chosen->config.request_headers) {
      remove_other_spellings(exchange.outgoing->fields, arena.copy_lower(name));
    }
    apply_edits(chosen->config.request_headers, exchange.outgoing->fields, arena);
    return {RuleVerdict::none};
  }

  void explain(const Subject& subject, uint64_t, nlohmann::json& out) const override {
    if (!sticky_words_.empty()) out["sticky"] = sticky_words_;
    for (const CompiledVariant& each : variants_) {
      nlohmann::json& entry =
          out["variants"].emplace_back(nlohmann::json{{"name", each.config.name}, {"weight", each.config.weight}});
      if (each.when) entry["when"] = each.config.when;
    }
    Arena arena;
    const CompiledVariant* const chosen = decided(subject, arena);
    out["variant"] = chosen == nullptr ? nlohmann::json() : nlohmann::json(chosen->config.name);
  }
  void add_samples(std::vector<Sample>& out) const override {
    for (const CompiledVariant& each : variants_) {
      out.push_back({"tidegate_l7_split_requests_total", "counter", "Requests that a split has given to a variant",
                     each.count->requests.value(), "variant", each.config.name.c_str()});
    }
  }

  void number_names(NameIds& names) override {
    for (CompiledVariant& each : variants_) each.number = names.id(each.config.name);
  }

  // The variant that a request gets. Null: it depends on chance or on the client's identity, which only a real request
  // shows.
  const CompiledVariant* decided(const Subject& subject, Arena& arena) const {
    for (const CompiledVariant& each : variants_) {
      if (!each.when) continue;
      if (each.when->what == SplitCondition::What::claim) return nullptr;
      if (holds(*each.when, each.config.values, subject, {}, arena)) return &each;
    }
    const size_t weighted = static_cast<size_t>(
        std::count_if(variants_.begin(), variants_.end(), [](const auto& each) { return each.config.weight > 0; }));
    if (weighted == 1) return &by_weight(0);
    const bool by_identity = std::any_of(sticky_words_.begin(), sticky_words_.end(), needs_identity);
    return sticky_words_.empty() || by_identity ? nullptr : &by_weight(key_of(subject, arena));
  }

 private:
  // Null: another split, or none, has chosen.
  const CompiledVariant* chosen_for(const Exchange& exchange) const {
    const auto found = std::find_if(variants_.begin(), variants_.end(),
                                    [&](const CompiledVariant& each) { return each.branch == exchange.branch; });
    return exchange.branch.empty() || found == variants_.end() ? nullptr : &*found;
  }
  uint64_t key_of(const Subject& subject, Arena& arena) const {
    return sticky_.of(subject, IpAddress::parse(subject.client), arena);
  }
  static uint64_t random_key() {
    thread_local std::mt19937_64 generator{std::random_device{}()};
    return generator();
  }
  const CompiledVariant* named_by(const Subject& subject, std::string_view claims, Arena& arena) const {
    const auto found = std::find_if(variants_.begin(), variants_.end(), [&](const CompiledVariant& each) {
      return each.when && holds(*each.when, each.config.values, subject, claims, arena);
    });
    return found == variants_.end() ? nullptr : &*found;
  }
  static bool holds(const SplitCondition& when, const std::vector<std::string>& values, const Subject& subject,
                    std::string_view claims, Arena& arena) {
    if (when.what == SplitCondition::What::claim) {
      if (claims.empty()) return false;
      const std::optional<JsonView> claim = find_claim(claims, when.name, arena);
      return claim && (values.empty() || claim_has(*claim, values, arena));
    }
    for (const Field& field : subject.request.fields) {
      if (when.what == SplitCondition::What::header) {
        if (field.name == when.name && has_value(values, field.value)) return true;
      } else if (field.kind == FieldKind::cookie) {
        if (has_value(values, cookie_of(field.value, when.name))) return true;
      }
    }
    return false;
  }
  const CompiledVariant& by_weight(uint64_t key) const {
    const CompiledVariant* best = &variants_.front();
    double best_time = INFINITY;
    for (const CompiledVariant& each : variants_) {
      if (each.config.weight == 0) continue;
      const std::string_view bytes(reinterpret_cast<const char*>(&key), sizeof(key));
      const HashKey of_variant{hash_key_.k0 ^ siphash13(hash_key_, each.config.name), hash_key_.k1};
      // In (0, 1): 53 bits, and never 0.
      const double number = (static_cast<double>(siphash13(of_variant, bytes) >> 11) + 0.5) * 0x1p-53;
      const double time = -std::log(number) / each.config.weight;
      if (time >= best_time) continue;
      best_time = time;
      best = &each;
    }
    return *best;
  }

  const HashKey hash_key_;
  const std::vector<std::string> sticky_words_;
  const RequestKey sticky_;
  std::vector<CompiledVariant> variants_;  // not empty
};

}  // namespace

SplitChoice split_choice_of(const Chain* chain, const Subject& subject) {
  if (chain == nullptr) return {};
  for (const Rule* rule : chain->rules) {
    if (rule->stage != Stage::split) continue;
    Arena arena;
    const CompiledVariant* const chosen = static_cast<const SplitRule*>(rule)->decided(subject, arena);
    return chosen == nullptr ? SplitChoice{} : SplitChoice{chosen->config.pool, chosen->branch};
  }
  return {};
}

void compile_split(const Policy& policy, Compiling& out) {
  out.rules.push_back(std::make_unique<SplitRule>(*policy.part<SplitPolicy>(kSplitKind), out));
}

}  // namespace tidegate::l7::policy
