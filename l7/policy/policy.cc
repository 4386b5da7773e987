// SPDX-License-Identifier: Apache-2.0
#include "l7/policy/policy.h"

#include <fmt/format.h>

#include <algorithm>

#include "conf/model/listener.h"
#include "conf/model/policy.h"
#include "conf/model/route.h"
#include "l7/name_ids.h"
#include "l7/policy/default_deny.h"
#include "l7/policy/kinds.h"

namespace tidegate::l7::policy {
namespace {

using Set = std::vector<uint32_t>;   // indexes of policies
constexpr uint32_t kDenies = kNone;  // the first element in the set of a listener that denies by default

// Gives equal lists equal numbers.
class Numbering {
 public:
  uint32_t number(const Set& set) {
    const auto [entry, added] = known_.emplace(set, static_cast<uint32_t>(sets_.size()));
    if (added) sets_.push_back(set);
    return entry->second;
  }
  const std::vector<Set>& sets() const { return sets_; }

 private:
  std::map<Set, uint32_t> known_;
  std::vector<Set> sets_;
};

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

Policies::Policies(const Model& model, const PolicyContents& contents, const LiveState& live_state, const HashKey& key,
                   Registry& registry) {
  const auto binds = [](const auto& element) { return !element.policies.empty(); };
  const auto denies = [](const Listener& listener) { return listener.default_deny; };
  const bool denies_any = std::any_of(model.listeners.begin(), model.listeners.end(), denies);
  const bool any =
      denies_any ||
      std::any_of(model.policies.begin(), model.policies.end(), [](const Policy& p) { return p.everywhere; }) ||
      std::any_of(model.listeners.begin(), model.listeners.end(), binds) ||
      std::any_of(model.routes.begin(), model.routes.end(), binds);
  if (!any) return;
  compile(model, contents, live_state, key, registry);
  if (denies_any) default_deny_ = rules_.emplace_back(make_default_deny(registry)).get();
  build_chains(model);
}

void Policies::compile(const Model& model, const PolicyContents& contents, const LiveState& live_state,
                       const HashKey& key, Registry& registry) {
  for (size_t p = 0; p < model.policies.size(); ++p) {
    const Policy& policy = model.policies[p];
    const size_t first = rules_.size();
    Compiling out{policy.name, *contents[p], key, registry, rules_, &key_sources_, &model, &live_state};
#define TIDEGATE_POLICY(name) \
  if (policy.parts.count(#name) != 0) compile_##name(policy, out);
#include "conf/policy/kinds.def"
#undef TIDEGATE_POLICY
    std::vector<const Rule*>& own = rules_of_policy_.emplace_back();
    for (size_t r = first; r < rules_.size(); ++r) own.push_back(rules_[r].get());
  }
}

// There are few different lists of policies, even with many routes. Each pair of different lists has one chain.
void Policies::build_chains(const Model& model) {
  Numbering of_listeners, of_routes;
  for (const Listener& listener : model.listeners) {
    Set set = listener.policies;
    if (listener.default_deny) set.insert(set.begin(), kDenies);
    set_of_listener_.push_back(of_listeners.number(set));
  }
  set_of_listener_.push_back(of_listeners.number({}));
  for (const Route& route : model.routes) set_of_route_.push_back(of_routes.number(route.policies));
  set_of_route_.push_back(of_routes.number({}));
  route_sets_ = of_routes.sets().size();

  Set everywhere;
  for (uint32_t p = 0; p < model.policies.size(); ++p) {
    if (model.policies[p].everywhere) everywhere.push_back(p);
  }
  for (const Set& of_listener : of_listeners.sets()) {
    find_foreseeing(everywhere, of_listener);
    for (const Set& of_route : of_routes.sets()) {
      Set all = everywhere;
      // A policy that is named twice is applied once.
      for (const Set* more : {&of_listener, &of_route}) {
        for (const uint32_t p : *more) {
          if (p != kDenies && std::find(all.begin(), all.end(), p) == all.end()) all.push_back(p);
        }
      }
      Chain& chain = chains_.emplace_back();
      for (const uint32_t p : all) {
        chain.rules.insert(chain.rules.end(), rules_of_policy_[p].begin(), rules_of_policy_[p].end());
      }
      const bool allowed =
          std::any_of(chain.rules.begin(), chain.rules.end(), [](const Rule* rule) { return rule->allows(); });
      if (!allowed && !of_listener.empty() && of_listener.front() == kDenies) chain.rules.push_back(default_deny_);
      std::stable_sort(chain.rules.begin(), chain.rules.end(),
                       [](const Rule* a, const Rule* b) { return a->stage < b->stage; });
      chain.answers_preflights = std::any_of(chain.rules.begin(), chain.rules.end(),
                                             [](const Rule* rule) { return rule->answers_preflights(); });
      chain.watches_end =
          std::any_of(chain.rules.begin(), chain.rules.end(), [](const Rule* rule) { return rule->watches_end(); });
      chain.forwards =
          std::any_of(chain.rules.begin(), chain.rules.end(), [](const Rule* rule) { return rule->forwards(); });
      answers_preflights_ = answers_preflights_ || chain.answers_preflights;
    }
  }
  if (std::all_of(foreseeing_.begin(), foreseeing_.end(), [](const auto& rules) { return rules.empty(); })) {
    foreseeing_.clear();
  }
}

// Finds the rules that foresee, in the policies that hold on every route of the listener.
void Policies::find_foreseeing(const std::vector<uint32_t>& everywhere, const std::vector<uint32_t>& of_listener) {
  std::vector<const Rule*>& found = foreseeing_.emplace_back();
  for (const std::vector<uint32_t>* each : {&everywhere, &of_listener}) {
    for (const uint32_t p : *each) {
      if (p == kDenies) continue;
      std::copy_if(rules_of_policy_[p].begin(), rules_of_policy_[p].end(), std::back_inserter(found),
                   [](const Rule* rule) { return rule->foresees(); });
    }
  }
}

const Chain* Policies::find(uint32_t listener, uint32_t route) const {
  const Chain& chain = chains_[set_of(set_of_listener_, listener) * route_sets_ + set_of(set_of_route_, route)];
  return chain.rules.empty() ? nullptr : &chain;
}

void Policies::number_names(NameIds& names) {
  for (const std::unique_ptr<Rule>& rule : rules_) rule->number_names(names);
  for (Chain& chain : chains_) {
    std::string text;
    for (const Rule* rule : chain.rules)
      text += fmt::format("{}{}.{}", text.empty() ? "" : ",", rule->policy, rule->kind);
    chain.name = names.id(text);
  }
}

void Policies::append_metrics(std::string& out) const {
  if (rules_.empty()) return;
  constexpr const char* kVerdicts = "tidegate_l7_policy_verdicts_total";
  out += fmt::format("# HELP {0} What each policy said of requests\n# TYPE {0} counter\n", kVerdicts);
  struct Family {
    const char *type, *help;
    std::string lines;
  };
  std::map<std::string_view, Family> families;
  for (const std::unique_ptr<Rule>& rule : rules_) {
    for (size_t v = 1; v < static_cast<size_t>(RuleVerdict::count_); ++v) {
      const auto verdict = static_cast<RuleVerdict>(v);
      const MetricLabels labels{{"policy", rule->policy}, {"kind", rule->kind}, {"verdict", name(verdict)}};
      out += fmt::format("{}{} {}\n", kVerdicts, render_labels(labels), rule->counts().of(verdict));
    }
    std::vector<Sample> samples;
    rule->add_samples(samples);
    for (const Sample& sample : samples) {
      Family& family = families.try_emplace(sample.family, Family{sample.type, sample.help, {}}).first->second;
      MetricLabels labels{{"policy", rule->policy}};
      if (sample.label != nullptr) labels.emplace_back(sample.label, sample.label_value);
      family.lines += fmt::format("{}{} {}\n", sample.family, render_labels(labels), sample.value);
    }
  }
  for (const auto& [family_name, family] : families) {
    out += fmt::format("# HELP {0} {1}\n# TYPE {0} {2}\n{3}", family_name, family.help, family.type, family.lines);
  }
}

}  // namespace tidegate::l7::policy
