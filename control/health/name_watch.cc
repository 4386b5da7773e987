// SPDX-License-Identifier: Apache-2.0
#include "control/health/name_watch.h"

#include <algorithm>

#include "conf/found_backends.h"
#include "conf/model.h"
#include "conf/model/node.h"
#include "conf/model/pool.h"
#include "conf/model/service.h"
#include "control/limits.h"
#include "core/log.h"

namespace tidegate {
namespace {

constexpr uint64_t kFirstNamePauseMs = 100, kLongestNamePauseMs = 2'000;
constexpr uint64_t kNameCommitBurst = 10;

}  // namespace

FoundName next_record(const FoundName* stored, const FoundName& found, bool settled, bool keeps_left, uint64_t now_ns) {
  FoundName next = found;
  if (stored == nullptr) return next;
  for (NamedEndpoint each : stored->endpoints) {
    const bool known = std::any_of(found.endpoints.begin(), found.endpoints.end(),
                                   [&](const NamedEndpoint& one) { return one.endpoint == each.endpoint; });
    if (known || next.endpoints.size() >= kNamedEndpoints) continue;
    if (settled) {
      if (each.left_ns == 0) each.left_ns = now_ns;
      if (!keeps_left || now_ns >= each.left_ns + kLeftServerNs) continue;
    }
    next.endpoints.push_back(each);
  }
  std::sort(next.endpoints.begin(), next.endpoints.end());
  return next;
}

NameWatch::NameWatch(EventLoop& loop, HostState& host_state, Fleet& fleet)
    : loop_(loop),
      host_state_(host_state),
      fleet_(fleet),
      names_(loop, metrics(), "tidegate_control_name_lookups_total", [this] { schedule(); }),
      timer_(loop, [this] { commit(); }),
      left_timer_(loop, [this] { schedule(); }),
      stored_(metrics().counter("tidegate_control_name_commits_total", "Commits of what names of backends lead to.")) {}

void NameWatch::update() {
  const std::shared_ptr<const Model> model = host_state_.model();
  if (!model) return;
  const std::vector<uint32_t> pools = pools_looked_up(*model);
  wanted_.clear();
  keeping_.clear();
  for (const uint32_t p : pools) {
    for (const Backend& backend : model->pools[p].backends) {
      const std::string key = name_key(backend);
      if (key.empty()) continue;
      wanted_.insert(key);
      const bool forwarded = std::any_of(model->services.begin(), model->services.end(),
                                         [&](const Service& service) { return service.pool == p; });
      if (forwarded) keeping_.insert(key);
    }
  }
  std::erase_if(settled_, [this](const std::string& key) { return !wanted_.contains(key); });
  const uint32_t own = model->node_index(fleet_.own_node(model.get()));
  names_.follow(*model, pools, own == kNone ? std::vector<Endpoint>() : model->nodes[own].dns.resolvers);
  schedule();  // also erases the records of names that no pool uses any more
}

size_t NameWatch::failing() const {
  const std::shared_ptr<const NameBook> book = names_.book();
  return static_cast<size_t>(
      std::count_if(book->begin(), book->end(), [](const auto& entry) { return !entry.second.trouble.empty(); }));
}

void NameWatch::schedule() {
  if (!committing_ && !timer_.armed()) timer_.arm_after_ms(0);
}

std::optional<FoundName> NameWatch::wanted_record(const std::string& key, const FoundName* stored) {
  const std::shared_ptr<const NameBook> book = names_.book();
  const auto found = book->find(key);
  if (found == book->end()) return stored == nullptr ? std::nullopt : std::optional(*stored);
  const bool answered = names_.is_answered(key);
  if (answered && found->second.trouble.empty()) settled_.insert(key);
  const bool knows_nothing = !answered && found->second.endpoints.empty();
  if (knows_nothing) return stored == nullptr ? std::nullopt : std::optional(*stored);
  return next_record(stored, found->second, settled_.contains(key), keeping_.contains(key), realtime_ns());
}

NameWatch::Changes NameWatch::changes() {
  Changes changed;
  const std::shared_ptr<const LiveState> live_state = host_state_.live_state();
  const auto stored_of = [&](const std::string& key) {
    const auto stored = live_state->names.find(key);
    return stored == live_state->names.end() ? nullptr : &stored->second;
  };
  for (const std::string& key : wanted_) {
    const FoundName* const stored = stored_of(key);
    std::optional<FoundName> next = wanted_record(key, stored);
    if (next && (stored == nullptr || *stored != *next)) changed.emplace_back(key, std::move(next));
  }
  for (const auto& [key, record] : live_state->names) {
    if (!wanted_.contains(key)) changed.emplace_back(key, std::nullopt);
  }
  return changed;
}

void NameWatch::wait_for_the_next_to_go() {
  uint64_t first_ns = 0;
  for (const auto& [key, record] : host_state_.live_state()->names) {
    for (const NamedEndpoint& each : record.endpoints) {
      if (each.left_ns != 0 && (first_ns == 0 || each.left_ns < first_ns)) first_ns = each.left_ns;
    }
  }
  if (first_ns == 0) return left_timer_.cancel();
  const uint64_t now_ns = realtime_ns(), due_ns = first_ns + kLeftServerNs;
  left_timer_.arm_after_ns(due_ns > now_ns ? due_ns - now_ns : kNsPerS);
}

void NameWatch::commit() {
  if (committing_) return;  // on_commit() looks again
  const Changes changed = changes();
  if (changed.empty()) return wait_for_the_next_to_go();
  const TokenRate rate = TokenRate::per_second(kNameCommitsPerS, kNameCommitBurst);
  if (!commits_.take(rate, 1, loop_.now_ns())) return timer_.arm_after_ms(1'000 / kNameCommitsPerS);
  committing_ = true;
  for (const auto& [key, record] : changed) {
    if (!record) continue;
    const auto leading = std::count_if(record->endpoints.begin(), record->endpoints.end(),
                                       [](const NamedEndpoint& each) { return each.left_ns == 0; });
    log_info("{} leads to {} servers{}{}", key, leading, record->trouble.empty() ? "" : "; ", record->trouble);
  }
  host_state_.decide<Result<uint64_t>>([&host_state = host_state_, changed] { return host_state.set_names(changed); },
                                       [self = self_](const Result<uint64_t>& sequence) {
                                         if (*self != nullptr) (*self)->on_commit(sequence);
                                       });
}

void NameWatch::on_commit(const Result<uint64_t>& sequence) {
  committing_ = false;
  if (sequence) {
    stored_.add();
    pause_ms_ = 0;
    return schedule();  // for names that were found meanwhile
  }
  if (pause_ms_ == 0) {
    log_error("cannot store what names of backends lead to, trying until it can be done: {}", sequence.error().message);
  }
  pause_ms_ = std::clamp(2 * pause_ms_, kFirstNamePauseMs, kLongestNamePauseMs);
  timer_.arm_after_ms(pause_ms_);
}

}  // namespace tidegate
