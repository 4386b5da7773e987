// SPDX-License-Identifier: Apache-2.0
#include "dns/steer/choose.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <optional>

#include "conf/model/steer.h"
#include "dns/limits.h"

namespace tidegate::dns {
namespace {

using Candidates = std::span<const Candidate>;

// The candidates of a draw: all candidates of one class, or of the classes of one group.
class Urn {
 public:
  void add(const Candidate& candidate) {
    if (count_ == kMaxDrawn) return;
    candidates_[count_++] = &candidate;
    total_ += candidate.weight;
  }
  bool empty() const { return count_ == 0; }
  // Draws by share. A candidate with share 0 is drawn only if no other is left.
  const Candidate& draw(Random& random) {
    size_t drawn = 0;
    if (count_ > 1 && total_ > 0) {
      for (uint64_t at = random.below_wide(total_); at >= candidates_[drawn]->weight; ++drawn)
        at -= candidates_[drawn]->weight;
    }
    const Candidate* const pick = candidates_[drawn];
    total_ -= pick->weight;
    std::copy(candidates_.begin() + static_cast<ptrdiff_t>(drawn) + 1,
              candidates_.begin() + static_cast<ptrdiff_t>(count_),
              candidates_.begin() + static_cast<ptrdiff_t>(drawn));
    --count_;
    return *pick;
  }

 private:
  std::array<const Candidate*, kMaxDrawn> candidates_;
  size_t count_ = 0;
  uint64_t total_ = 0;
};

// Records no steps. Queries use this trail, so explain does not slow them down.
struct NoTrail {
  static size_t step(const ChoiceStep&) { return 0; }
  static void settle(size_t, bool) {}
  static void enter() {}
  static void leave() {}
};
struct StepTrail {
  std::vector<ChoiceStep>& steps;
  bool anyway = false;
  uint8_t level = 0;
  // Returns the step's index.
  size_t step(ChoiceStep step) {
    step.level = level;
    step.anyway = anyway;
    steps.push_back(step);
    return steps.size() - 1;
  }
  void settle(size_t index, bool gave) {
    steps[index].kind = gave ? ChoiceStep::Kind::target : ChoiceStep::Kind::nothing;
  }
  void enter() { ++level; }
  void leave() { --level; }
};

template <class Trail>
class Chooser {
 public:
  Chooser(const SteerContext& context, IpAddress::Family family, const IpAddress& client, const DrawKey& key,
          uint8_t needed, Choice& choice, Trail trail)
      : context_(context),
        family_(family),
        client_(client),
        key_(key),
        needed_(needed),
        choice_(choice),
        trail_(std::move(trail)) {}

  // Adds the steer's answer to the choice, which has room up to `end`. Returns true if it had one. `salt` makes its
  // draws different from those of the outer steers.
  bool take(const CompiledSteer& steer, uint64_t salt, uint32_t end) {
    end = std::min(end, choice_.count + steer.max_answers);
    trail_.step({ChoiceStep::Kind::steer, 0, steer.model_index});
    trail_.enter();
    const bool taken = take_by_policy(steer, salt, end);
    trail_.leave();
    if (!taken) return false;
    choice_.ttl_s = std::min(choice_.ttl_s, steer.ttl_s);
    return true;
  }

  // True if take() would have an answer. Raises the scope for every decision on which the answer may depend, in all
  // inner steers, also in those that the draw does not reach.
  bool survey(const CompiledSteer& steer) {
    const CompiledSteer::Family& family = steer.of(family_);
    const auto any_of_class = [&](const CandidateClass& each) { return survey_class(family.of(each)); };
    switch (steer.policy) {
      case SteerPolicy::nearest:
        if (family.ranking != kNone) return survey_nearest(family);
        break;
      case SteerPolicy::shed:
        if (family.ranking != kNone) {
          return by_load(steer, family, [&](const CandidateClass& each) { return any_of_class(each); });
        }
        break;
      case SteerPolicy::map:
        return family.ranking != kNone && survey_mapped(family);
      case SteerPolicy::weighted: {
        bool any = false;
        for (const CandidateClass& each : family.classes)
          any |= steer.target_weights[each.key] != 0 && any_of_class(each);
        return any;
      }
      case SteerPolicy::sticky: {
        double passed = -1;
        while (const Candidate* const pick = next_of_network(steer, family, passed)) {
          if (survey_candidate(*pick)) return true;
        }
        return false;
      }
      case SteerPolicy::failover:
      case SteerPolicy::multivalue:
        break;
    }
    return std::any_of(family.classes.begin(), family.classes.end(), any_of_class);
  }

  // True if the steer has an address of the family for this client. Health is ignored.
  bool could_answer(const CompiledSteer& steer) const {
    const CompiledSteer::Family& family = steer.of(family_);
    const bool by_weight = steer.policy == SteerPolicy::weighted || steer.policy == SteerPolicy::sticky;
    return std::any_of(family.candidates.begin(), family.candidates.end(), [&](const Candidate& candidate) {
      if (by_weight && steer.target_weights[candidate.target] == 0) return false;
      if (steer.policy == SteerPolicy::map) {
        const auto ranking = context_.rankings.maps[family.ranking]->find(client_).ranking;
        if (std::find(ranking.begin(), ranking.end(), candidate.target) == ranking.end()) return false;
      }
      switch (candidate.kind) {
        case Candidate::Kind::steer:
          return could_answer(context_.steers[candidate.led_to]);
        case Candidate::Kind::alias: {
          const AliasAddresses::Of& alias = context_.aliases[candidate.led_to].of(family_);
          return !alias.known || !alias.addresses.empty();
        }
        case Candidate::Kind::address:
          break;
      }
      return true;
    });
  }

 private:
  // The key's seed is computed only when something is drawn, because most classes have one candidate.
  uint64_t seed(uint64_t salt) {
    if (!seed_) seed_ = key_.seed();
    return salt == 0 ? *seed_ : mix64(*seed_ ^ salt);
  }

  bool take_by_policy(const CompiledSteer& steer, uint64_t salt, uint32_t end) {
    const CompiledSteer::Family& family = steer.of(family_);
    switch (steer.policy) {
      case SteerPolicy::nearest:
        if (family.ranking != kNone) return take_nearest(family, salt, end);
        break;
      case SteerPolicy::shed:
        if (family.ranking != kNone) {
          return by_load(steer, family,
                         [&](const CandidateClass& each) { return take_class(family.of(each), salt, end); });
        }
        break;
      case SteerPolicy::map:
        return family.ranking != kNone && take_mapped(family, salt, end);
      case SteerPolicy::weighted:
        return take_weighted(steer, family, salt, end);
      case SteerPolicy::sticky:
        return take_sticky(steer, family, salt, end);
      case SteerPolicy::failover:
      case SteerPolicy::multivalue:
        break;
    }
    return std::any_of(family.classes.begin(), family.classes.end(),
                       [&](const CandidateClass& each) { return take_class(family.of(each), salt, end); });
  }

  bool take_nearest(const CompiledSteer::Family& family, uint64_t salt, uint32_t end) {
    const RankingMap::Found found = find(family);
    choice_.placed = choice_.placed && !found.as_unknown;
    for (const uint32_t site : found.ranking) {
      const CandidateClass* const each = family.find(site);
      if (each != nullptr && take_class(family.of(*each), salt, end)) return true;
    }
    const CandidateClass& last = family.classes.back();
    return last.key == kNone && take_class(family.of(last), salt, end);
  }

  // `nearest`, but the loaded sites that send this client on come last. If every site sends it on, one is drawn by the
  // shares that the sites keep, so that all of them share the excess. A hash of the client's network decides who is
  // sent on. So while a share grows, a client that was sent on is still sent on.
  template <class Use>
  bool by_load(const CompiledSteer& steer, const CompiledSteer::Family& family, Use&& use) {
    const RankingMap::Found found = find(family);
    choice_.placed = choice_.placed && !found.as_unknown;
    bool sent_on = false;
    for (const uint32_t site : found.ranking) {
      const CandidateClass* const each = family.find(site);
      if (each == nullptr) continue;
      if (sends_on(steer, site)) {
        sent_on = sent_on || any_usable(family.of(*each));
        trail_.step({ChoiceStep::Kind::shed, 0, steer.model_index, kNone, site});
      } else if (use(*each)) {
        choice_.shed = choice_.shed || sent_on;
        return true;
      }
    }
    const CandidateClass& last = family.classes.back();
    if (last.key == kNone && use(last)) {
      choice_.shed = choice_.shed || sent_on;
      return true;
    }
    double passed = -1;
    while (const CandidateClass* const each = next_by_room(steer, family, found.ranking, passed)) {
      if (use(*each)) return true;
    }
    return false;
  }

  bool sends_on(const CompiledSteer& steer, uint32_t site) {
    if (context_.shares.empty() || context_.shares[site].below == 0) return false;
    return hash_at_site(steer, site) < context_.shares[site].below;
  }
  // From here on the answer depends on the client's network.
  uint64_t hash_at_site(const CompiledSteer& steer, uint32_t site) {
    const uint8_t prefix = client_.is_v4() ? steer.client_prefix_v4 : steer.client_prefix_v6;
    choice_.scope = std::max(choice_.scope, prefix);
    return mix64(key_.hash_of_network(prefix) ^ steer.name_hash ^ context_.shares[site].identity);
  }

  // Among the sites that send the client on: rendezvous hashing by the share that each keeps, as in next_of_network().
  const CandidateClass* next_by_room(const CompiledSteer& steer, const CompiledSteer::Family& family,
                                     std::span<const uint32_t> sites, double& passed) {
    double best = std::numeric_limits<double>::infinity();
    const CandidateClass* pick = nullptr;
    for (const uint32_t site : sites) {
      const CandidateClass* const each = family.find(site);
      if (each == nullptr || !sends_on(steer, site)) continue;
      const double uniform = (static_cast<double>(mix64(hash_at_site(steer, site)) >> 11) + 0.5) * 0x1p-53;
      const double score = -std::log(uniform) / context_.shares[site].kept_permille;
      if (score > passed && score < best) {
        best = score;
        pick = each;
      }
    }
    passed = best;
    return pick;
  }

  bool take_mapped(const CompiledSteer::Family& family, uint64_t salt, uint32_t end) {
    const auto ranking = find(family).ranking;
    if (ranking.empty()) choice_.named = false;
    for (auto at = ranking.begin(); at != ranking.end();) {
      Urn urn;
      for (; at != ranking.end() && *at != RankingMap::kNextGroup; ++at) {
        if (const CandidateClass* const each = family.find(*at)) fill(urn, family.of(*each));
      }
      if (at != ranking.end()) ++at;
      if (draw_from(urn, salt, end)) return true;
    }
    return false;
  }

  // Draws one target. If this target has no address, draws another one.
  bool take_weighted(const CompiledSteer& steer, const CompiledSteer::Family& family, uint64_t salt, uint32_t end) {
    std::array<const CandidateClass*, kMaxDrawn> open;
    size_t count = 0;
    uint64_t total = 0;
    for (const CandidateClass& each : family.classes) {
      const uint32_t weight = steer.target_weights[each.key];
      if (weight == 0 || count == kMaxDrawn) continue;
      open[count++] = &each;
      total += weight;
    }
    Random random(seed(salt));
    while (count > 0) {
      size_t drawn = 0;
      for (uint64_t at = random.below_wide(total); at >= steer.target_weights[open[drawn]->key]; ++drawn)
        at -= steer.target_weights[open[drawn]->key];
      const CandidateClass* const pick = open[drawn];
      if (take_class(family.of(*pick), mix64(salt + 1), end)) return true;
      total -= steer.target_weights[pick->key];
      open[drawn] = open[--count];
    }
    return false;
  }

  bool take_sticky(const CompiledSteer& steer, const CompiledSteer::Family& family, uint64_t salt, uint32_t end) {
    double passed = -1;
    while (const Candidate* const pick = next_of_network(steer, family, passed)) {
      if (add(*pick, salt, pick->kind == Candidate::Kind::address ? choice_.count + 1 : end)) return true;
    }
    return false;
  }

  // Rendezvous hashing (Thaler and Ravishankar 1998), with weights (Schindelhauer and Schomaker 2005): each candidate
  // has a score of its own for the client's network, and the smallest wins. So the loss of a candidate moves only the
  // networks that it had. Returns the candidate after the one whose score is `passed`, and its score; null after the
  // last.
  const Candidate* next_of_network(const CompiledSteer& steer, const CompiledSteer::Family& family, double& passed) {
    const uint8_t prefix = client_.is_v4() ? steer.client_prefix_v4 : steer.client_prefix_v6;
    if (family.candidates.size() > 1) choice_.scope = std::max(choice_.scope, prefix);
    const uint64_t network = key_.hash_of_network(prefix) ^ steer.name_hash;
    double best = std::numeric_limits<double>::infinity();
    const Candidate* pick = nullptr;
    for (const Candidate& candidate : family.candidates) {
      if (!is_usable(candidate) || candidate.weight == 0) continue;
      const double uniform = (static_cast<double>(mix64(network ^ candidate.identity) >> 11) + 0.5) * 0x1p-53;
      const double score = -std::log(uniform) / candidate.weight;
      if (score > passed && score < best) {
        best = score;
        pick = &candidate;
      }
    }
    passed = best;
    return pick;
  }

  bool survey_nearest(const CompiledSteer::Family& family) {
    for (const uint32_t site : find(family).ranking) {
      const CandidateClass* const each = family.find(site);
      if (each != nullptr && survey_class(family.of(*each))) return true;
    }
    const CandidateClass& last = family.classes.back();
    return last.key == kNone && survey_class(family.of(last));
  }

  bool survey_mapped(const CompiledSteer::Family& family) {
    bool any = false;
    for (const uint32_t target : find(family).ranking) {
      if (target == RankingMap::kNextGroup) {
        if (any) return true;
      } else if (const CandidateClass* const each = family.find(target)) {
        any |= survey_class(family.of(*each));
      }
    }
    return any;
  }

  bool survey_class(Candidates from) {
    bool any = false;
    for (const Candidate& candidate : from) any |= is_usable(candidate) && survey_candidate(candidate);
    return any;
  }

  bool survey_candidate(const Candidate& candidate) {
    switch (candidate.kind) {
      case Candidate::Kind::steer:
        return survey(context_.steers[candidate.led_to]);
      case Candidate::Kind::alias:
        return !context_.aliases[candidate.led_to].of(family_).addresses.empty();
      case Candidate::Kind::address:
        break;
    }
    return true;
  }

  bool take_class(Candidates from, uint64_t salt, uint32_t end) {
    if (from.size() == 1) return is_usable(from.front()) && add(from.front(), salt, end);
    return draw_class(from, salt, end);
  }
  [[gnu::noinline]] bool draw_class(Candidates from, uint64_t salt, uint32_t end) {
    Urn urn;
    fill(urn, from);
    return draw_from(urn, salt, end);
  }

  void fill(Urn& urn, Candidates from) const {
    for (const Candidate& candidate : from) {
      if (is_usable(candidate)) urn.add(candidate);
    }
  }

  bool draw_from(Urn& urn, uint64_t salt, uint32_t end) {
    const uint32_t before = choice_.count;
    Random random(seed(salt));
    while (!urn.empty() && choice_.count < end) add(urn.draw(random), salt, end);
    return choice_.count != before;
  }

  // Looks at health and overrides only. A usable steer or alias may still have no address.
  bool is_usable(const Candidate& candidate) const {
    return (context_.health[candidate.health] & context_.health[candidate.target_health] & needed_) != 0;
  }

  bool any_usable(Candidates from) const {
    return std::any_of(from.begin(), from.end(), [this](const Candidate& each) { return is_usable(each); });
  }

  bool add(const Candidate& candidate, uint64_t salt, uint32_t end) {
    const size_t at = trail_.step({ChoiceStep::Kind::target, 0, kNone, candidate.target, candidate.site});
    const bool added = add_addresses(candidate, salt, end);
    trail_.settle(at, added);
    return added;
  }

  bool add_addresses(const Candidate& candidate, uint64_t salt, uint32_t end) {
    switch (candidate.kind) {
      case Candidate::Kind::address:
        return push(candidate.address);
      case Candidate::Kind::steer: {
        const CompiledSteer& inner = context_.steers[candidate.led_to];
        return take(inner, mix64(salt ^ inner.name_hash), end);
      }
      case Candidate::Kind::alias:
        break;
    }
    const AliasAddresses::Of& alias = context_.aliases[candidate.led_to].of(family_);
    if (alias.addresses.empty()) return false;
    const size_t count = alias.addresses.size();
    const size_t first = Random(seed(mix64(salt ^ candidate.identity))).below(static_cast<uint32_t>(count));
    bool added = false;
    for (size_t i = 0; i < count && choice_.count < end; ++i) added |= push(alias.addresses[(first + i) % count]);
    if (added) choice_.ttl_s = std::min(choice_.ttl_s, alias.ttl_s);
    return added;
  }

  // An RRset has a record only once (RFC 2181 §5), and there may be several ways to an address.
  bool push(const std::array<uint8_t, 16>& address) {
    const size_t bytes = family_ == IpAddress::Family::v4 ? 4 : 16;
    for (uint32_t i = 0; i < choice_.count; ++i) {
      if (std::memcmp(choice_.picks[i], address.data(), bytes) == 0) return false;
    }
    choice_.picks[choice_.count++] = address.data();
    return true;
  }

  RankingMap::Found find(const CompiledSteer::Family& family) {
    const RankingMap::Found found = context_.rankings.maps[family.ranking]->find(client_);
    choice_.scope = std::max(choice_.scope, found.scope);
    return found;
  }

  const SteerContext& context_;
  IpAddress::Family family_;
  const IpAddress& client_;
  const DrawKey& key_;
  uint8_t needed_;
  Choice& choice_;
  [[no_unique_address]] Trail trail_;
  std::optional<uint64_t> seed_;
};

template <class OfUsual, class OfAnyway>
Choice decide(const SteerContext& context, const CompiledSteer& steer, IpAddress::Family family,
              const IpAddress& client, const DrawKey& key, OfUsual of_usual, OfAnyway of_anyway) {
  Choice choice;
  choice.ttl_s = steer.ttl_s;
  Chooser usual(context, family, client, key, health::kUsable, choice, of_usual);
  const auto survey = [&](uint8_t needed) {
    if (!steer.leads_on) return;
    Choice surveyed;
    surveyed.scope = choice.scope;
    Chooser(context, family, client, key, needed, surveyed, NoTrail()).survey(steer);
    choice.scope = surveyed.scope;
  };
  survey(health::kUsable);
  if (usual.take(steer, 0, kMaxAnswers)) return choice;
  Chooser anyway(context, family, client, key, health::kFailOpen, choice, of_anyway);
  if (steer.all_down == AllDown::open) survey(health::kFailOpen);
  if (steer.all_down == AllDown::open) choice.failed_open = anyway.take(steer, 0, kMaxAnswers);
  choice.refused = choice.count == 0 && anyway.could_answer(steer);
  return choice;
}

}  // namespace

Choice choose(const SteerContext& context, const CompiledSteer& steer, IpAddress::Family family,
              const IpAddress& client, const DrawKey& key) {
  return decide(context, steer, family, client, key, NoTrail(), NoTrail());
}

Choice choose_told(const SteerContext& context, const CompiledSteer& steer, IpAddress::Family family,
                   const IpAddress& client, const DrawKey& key, std::vector<ChoiceStep>& steps) {
  return decide(context, steer, family, client, key, StepTrail{steps}, StepTrail{steps, true});
}

}  // namespace tidegate::dns
