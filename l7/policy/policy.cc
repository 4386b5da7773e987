// SPDX-License-Identifier: Apache-2.0
#include "l7/policy/policy.h"

#include <fmt/format.h>

#include <algorithm>

#include "conf/model/policy.h"
#include "conf/model/pool.h"
#include "conf/policy/limit.h"
#include "l7/name_ids.h"
#include "l7/policy/default_deny.h"
#include "l7/policy/kinds.h"

namespace tidegate::l7::policy {
namespace {

// The names of the pools, by which rules know them besides their indexes.
bool same_pools(const Model& a, const Model& b) {
  if (a.pools.size() != b.pools.size()) return false;
  for (size_t p = 0; p < a.pools.size(); ++p) {
    if (!a.pools.shares(p, b.pools) && a.pools[p].name != b.pools[p].name) return false;
  }
  return true;
}

// The quota that an operator gave the policy's limit.
std::optional<std::pair<uint64_t, uint64_t>> quota_of(const Policy& policy, const LiveState& live_state) {
  const auto* const limit = policy.part<LimitPolicy>("limit");
  if (limit == nullptr) return std::nullopt;
  LimitPolicy changed = *limit;
  if (!take_quota(live_state, policy.name, changed)) return std::nullopt;
  return std::pair(changed.requests, changed.burst);
}

}  // namespace

const char* name(Stage stage) {
  constexpr const char* kNames[] = {"limit",     "networks",       "preflight", "maintenance", "authenticate",
                                    "authorise", "identity_limit", "deadline",  "concurrency", "mock",
                                    "fault",     "aggregate",      "split",     "mirror",      "transform",
                                    "compress",  "answer"};
  static_assert(std::size(kNames) == static_cast<size_t>(Stage::answer) + 1);
  return kNames[static_cast<size_t>(stage)];
}

const char* name(RuleVerdict verdict) {
  constexpr const char* kNames[] = {"none", "passed", "exempt", "waited", "refused", "answered"};
  static_assert(std::size(kNames) == static_cast<size_t>(RuleVerdict::count_));
  return kNames[static_cast<size_t>(verdict)];
}

Rule::Rule(Stage its_stage, std::string its_policy, const char* its_kind, Registry& registry)
    : stage(its_stage), policy(std::move(its_policy)), kind(its_kind), counts_([&] {
        struct Counts final : Runtime {
          VerdictCounts counts;
        };
        const auto entry = registry.get<Counts>(fmt::format("{}/{}/verdicts", policy, kind));
        return std::shared_ptr<VerdictCounts>(entry, &entry->counts);
      }()) {}

Policies::Policies(const Inputs& inputs, Registry& registry, const Policies* previous, const Model* before)
    : bindings_(inputs.bindings) {
  if (bindings_->lists.empty()) return;
  compile(inputs, registry, previous, before);
  const auto denies = [](const PolicyBindings::List& list) { return list.denies; };
  if (std::any_of(bindings_->lists.begin(), bindings_->lists.end(), denies)) {
    default_deny_ = make_default_deny(registry);
  }
  build_chains();
  find_foreseeing();
}

void Policies::compile(const Inputs& inputs, Registry& registry, const Policies* previous, const Model* before) {
  const Model& model = inputs.model;
  const bool known =
      previous != nullptr && before != nullptr && !previous->compiled_.empty() && same_pools(model, *before);
  compiled_.reserve(model.policies.size());
  for (size_t p = 0; p < model.policies.size(); ++p) {
    const Policy& policy = model.policies[p];
    const std::optional<std::pair<uint64_t, uint64_t>> quota = quota_of(policy, inputs.live_state);
    if (known && model.policies.shares(p, before->policies)) {
      const std::shared_ptr<CompiledPolicy>& as_before = previous->compiled_[p];
      if (as_before->content == inputs.contents[p] && as_before->quota == quota && !as_before->reads_files) {
        compiled_.push_back(as_before);
        continue;
      }
    }
    CompiledPolicy& compiled = *compiled_.emplace_back(std::make_shared<CompiledPolicy>());
    compiled.content = inputs.contents[p];
    compiled.quota = quota;
    Compiling out{policy.name,    *compiled.content,     inputs.key, registry,
                  compiled.rules, &compiled.key_sources, &model,     &inputs.live_state};
#define TIDEGATE_POLICY(name) \
  if (policy.parts.count(#name) != 0) compile_##name(policy, out);
#include "conf/policy/kinds.def"
#undef TIDEGATE_POLICY
    compiled.reads_files = out.reads_files;
  }
}

void Policies::build_chains() {
  chains_.reserve(bindings_->lists.size());
  for (const PolicyBindings::List& bound : bindings_->lists) {
    chains_.push_back(make_chain(bound));
    answers_preflights_ = answers_preflights_ || chains_.back().answers_preflights;
  }
}

Chain Policies::make_chain(const PolicyBindings::List& bound) const {
  Chain chain;
  for (const uint32_t p : bound.policies) {
    for (const std::unique_ptr<Rule>& rule : compiled_[p]->rules) chain.rules.push_back(rule.get());
  }
  const auto any = [&chain](bool (Rule::*has)() const) {
    return std::any_of(chain.rules.begin(), chain.rules.end(), [has](const Rule* rule) { return (rule->*has)(); });
  };
  if (bound.denies && !any(&Rule::allows)) chain.rules.push_back(default_deny_.get());
  std::stable_sort(chain.rules.begin(), chain.rules.end(),
                   [](const Rule* a, const Rule* b) { return a->stage < b->stage; });
  chain.answers_preflights = any(&Rule::answers_preflights);
  chain.watches_end = any(&Rule::watches_end);
  chain.forwards = any(&Rule::forwards);
  return chain;
}

// Finds the rules that foresee, in the policies that hold on every route of the listener.
void Policies::find_foreseeing() {
  bool any = false;
  for (size_t first = 0; first < bindings_->lists.size(); first += bindings_->route_sets) {
    const PolicyBindings::List& bound = bindings_->lists[first];
    std::vector<const Rule*>& found = foreseeing_.emplace_back();
    for (size_t i = 0; i < bound.of_every_route; ++i) {
      for (const std::unique_ptr<Rule>& rule : compiled_[bound.policies[i]]->rules) {
        if (rule->foresees()) found.push_back(rule.get());
      }
    }
    any = any || !found.empty();
  }
  if (!any) foreseeing_.clear();
}

template <class Fn>
void Policies::for_each_rule(Fn fn) const {
  for (const std::shared_ptr<CompiledPolicy>& each : compiled_) {
    for (const std::unique_ptr<Rule>& rule : each->rules) fn(*rule);
  }
  if (default_deny_ != nullptr) fn(*default_deny_);
}

const Chain* Policies::find(uint32_t listener, uint32_t route) const {
  const Chain& chain = chains_[bindings_->place_of(listener, route)];
  return chain.rules.empty() ? nullptr : &chain;
}

std::vector<KeySourceUse> Policies::key_sources() const {
  std::vector<KeySourceUse> all;
  for (const std::shared_ptr<CompiledPolicy>& each : compiled_) {
    all.insert(all.end(), each->key_sources.begin(), each->key_sources.end());
  }
  return all;
}

void Policies::number_names(NameIds& names) {
  for (const std::shared_ptr<CompiledPolicy>& each : compiled_) {
    if (each->numbered) continue;  // workers may read its rules now
    for (const std::unique_ptr<Rule>& rule : each->rules) rule->number_names(names);
    each->numbered = true;
  }
  for (Chain& chain : chains_) {
    std::string text;
    for (const Rule* rule : chain.rules)
      text += fmt::format("{}{}.{}", text.empty() ? "" : ",", rule->policy, rule->kind);
    chain.name = names.id(text);
  }
}

void Policies::append_metrics(std::string& out) const {
  if (compiled_.empty() && default_deny_ == nullptr) return;
  constexpr const char* kVerdicts = "tidegate_l7_policy_verdicts_total";
  out += fmt::format("# HELP {0} What each policy said of requests\n# TYPE {0} counter\n", kVerdicts);
  struct Family {
    const char *type, *help;
    std::string lines;
  };
  std::map<std::string_view, Family> families;
  for_each_rule([&](const Rule& rule) {
    for (size_t v = 1; v < static_cast<size_t>(RuleVerdict::count_); ++v) {
      const auto verdict = static_cast<RuleVerdict>(v);
      const MetricLabels labels{{"policy", rule.policy}, {"kind", rule.kind}, {"verdict", name(verdict)}};
      out += fmt::format("{}{} {}\n", kVerdicts, render_labels(labels), rule.counts().of(verdict));
    }
    std::vector<Sample> samples;
    rule.add_samples(samples);
    for (const Sample& sample : samples) {
      Family& family = families.try_emplace(sample.family, Family{sample.type, sample.help, {}}).first->second;
      MetricLabels labels{{"policy", rule.policy}};
      if (sample.label != nullptr) labels.emplace_back(sample.label, sample.label_value);
      family.lines += fmt::format("{}{} {}\n", sample.family, render_labels(labels), sample.value);
    }
  });
  for (const auto& [family_name, family] : families) {
    out += fmt::format("# HELP {0} {1}\n# TYPE {0} {2}\n{3}", family_name, family.help, family.type, family.lines);
  }
}

}  // namespace tidegate::l7::policy
