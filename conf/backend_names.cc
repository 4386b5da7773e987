// SPDX-License-Identifier: Apache-2.0
#include "conf/backend_names.h"

#include <algorithm>
#include <numeric>
#include <string_view>

#include "conf/limits.h"
#include "conf/model/service.h"
#include "core/clock.h"
#include "core/log.h"

namespace tidegate {
namespace {

constexpr uint64_t kTogetherMs = 20;  // answers that come within this time count as one change
constexpr uint64_t kFirstRetryMs = 1'000, kLastRetryMs = 60'000;
constexpr const char* kLookupsHelp = "Lookups of names of backends, by result";
constexpr std::string_view kHostPrefix = "host ", kSrvPrefix = "srv ";

}  // namespace

std::string name_key(const Backend& backend) {
  if (!backend.found_by.empty()) return {};
  if (!backend.host.empty()) return std::string(kHostPrefix) + backend.host;
  return backend.srv.empty() ? std::string() : std::string(kSrvPrefix) + backend.srv;
}

const FoundName* find_name(const NameBook* book, const Backend& backend) {
  if (book == nullptr || (backend.host.empty() && backend.srv.empty())) return nullptr;
  const auto found = book->find(name_key(backend));
  return found == book->end() ? nullptr : &found->second;
}

void BackendNames::Bounds::narrow(const Bounds& other) {
  least_ms = std::min(least_ms, other.least_ms);
  most_ms = std::min(most_ms, other.most_ms);
}

BackendNames::BackendNames(EventLoop& loop, Metrics& metrics, const char* metric, std::function<void()> on_change)
    : loop_(loop),
      on_change_(std::move(on_change)),
      found_(metrics.counter(metric, kLookupsHelp, {{"result", "found"}})),
      none_(metrics.counter(metric, kLookupsHelp, {{"result", "none"}})),
      failed_(metrics.counter(metric, kLookupsHelp, {{"result", "failed"}})),
      due_(loop, [this] { run_due(); }),
      changed_(loop, [this] { rebuild(); }) {}

void BackendNames::follow(const Model& model, const std::vector<Endpoint>& resolvers) {
  std::vector<uint32_t> all(model.pools.size());
  std::iota(all.begin(), all.end(), 0);
  follow(model, all, resolvers);
}

void BackendNames::follow(const Model& model, const std::vector<uint32_t>& pools,
                          const std::vector<Endpoint>& resolvers) {
  wanted_.clear();
  for (const uint32_t index : pools) {
    const Pool& pool = model.pools[index];
    for (const Backend& backend : pool.backends) {
      if (name_key(backend).empty()) continue;
      const bool srv = !backend.srv.empty();
      wanted_[{srv ? backend.srv : backend.host, srv}].narrow({pool.lookup_min_ms, pool.lookup_max_ms});
    }
  }
  if (resolvers != resolvers_) lookup_.reset();
  resolvers_ = resolvers;
  if (wanted_.empty()) {
    lookups_.clear();
    lookup_.reset();
    due_.cancel();
    if (!book_->empty()) rebuild();
    return;
  }
  if (!lookup_) {
    lookup_ = std::make_unique<NameLookup>(loop_, resolvers_);
    for (auto& [key, lookup] : lookups_) lookup.asked = lookup.due_ns = 0;  // a question in progress is asked again
  }
  want_all();
  run_due();
}

// The names of the model, and the targets that their SRV records name.
void BackendNames::want_all() {
  std::map<Key, Lookup> next;
  for (const auto& [name, bounds] : wanted_) {
    if (!name.second) {
      for (const Type type : {Type::a, Type::aaaa}) want(name.first, type, bounds, next);
      continue;
    }
    want(name.first, Type::srv, bounds, next);
    const std::vector<NameLookup::Service> services = next[{name.first, Type::srv}].last.services;
    for (const NameLookup::Service& service : services) {
      for (const Type type : {Type::a, Type::aaaa}) want(service.target, type, bounds, next);
    }
  }
  lookups_ = std::move(next);
}

void BackendNames::want(const std::string& name, Type type, const Bounds& bounds, std::map<Key, Lookup>& next) {
  const auto [entry, is_new] = next.try_emplace({name, type});
  if (is_new) {
    if (const auto known = lookups_.find({name, type}); known != lookups_.end()) entry->second = known->second;
    entry->second.bounds = {};
  }
  entry->second.bounds.narrow(bounds);
}

void BackendNames::run_due() {
  if (!lookup_) return;
  const uint64_t now = monotonic_ns();
  std::vector<Key> due;
  for (auto& [key, lookup] : lookups_) {
    if (lookup.asked != 0 || lookup.due_ns > now) continue;
    lookup.asked = ++questions_;
    due.push_back(key);
  }
  for (const Key& key : due) {  // an answer may come at once
    const uint64_t number = lookups_[key].asked;
    lookup_->ask(key.first, key.second,
                 [this, key, number](NameLookup::Answer&& answer) { answered(key, number, std::move(answer)); });
  }
  uint64_t next = UINT64_MAX;
  for (const auto& [key, lookup] : lookups_) {
    if (lookup.asked == 0) next = std::min(next, lookup.due_ns);
  }
  if (next == UINT64_MAX) {
    due_.cancel();
  } else {
    due_.arm_at_ns(next);
  }
}

void BackendNames::answered(const Key& key, uint64_t number, NameLookup::Answer&& answer) {
  using Kind = NameLookup::Answer::Kind;
  const auto at = lookups_.find(key);
  if (at == lookups_.end() || at->second.asked != number) return;  // nobody wants the name any more
  Lookup& lookup = at->second;
  lookup.asked = 0;
  lookup.known = true;
  (answer.kind == Kind::found ? found_ : answer.kind == Kind::none ? none_ : failed_).add();
  const uint64_t now = monotonic_ns();
  if (answer.kind == Kind::failed) {
    const uint64_t wait_ms = std::min(kLastRetryMs, kFirstRetryMs << std::min<uint32_t>(lookup.failures++, 6));
    lookup.due_ns = now + std::min(wait_ms, lookup.bounds.most_ms) * kNsPerMs;
    lookup.trouble = answer.reason;
  } else {
    const uint64_t ttl_ms = answer.kind == Kind::none ? 0 : uint64_t{answer.ttl_s} * 1'000;
    const uint64_t least_ms = std::min(lookup.bounds.least_ms, lookup.bounds.most_ms);
    lookup.due_ns = now + std::clamp(ttl_ms, std::max<uint64_t>(1, least_ms), lookup.bounds.most_ms) * kNsPerMs;
    lookup.failures = 0;
    lookup.trouble = answer.kind == Kind::none ? "nothing of this type" : "";
    lookup.last.kind = answer.kind;
    if (answer.kind == Kind::found) {
      lookup.last = std::move(answer);
      if (key.second == Type::srv) want_all();  // also the targets of its SRV records
    }
  }
  if (!changed_.armed()) changed_.arm_after_ms(kTogetherMs);
  loop_.defer([this] { run_due(); });
}

void BackendNames::add_addresses(const std::string& name, NamedEndpoint endpoint, FoundName& out) const {
  const auto of = [&](Type type) {
    const auto at = lookups_.find({name, type});
    return at == lookups_.end() ? nullptr : &at->second;
  };
  const Lookup* const v4 = of(Type::a);
  const Lookup* const v6 = of(Type::aaaa);
  if (v4 == nullptr || v6 == nullptr) return;
  using Kind = NameLookup::Answer::Kind;
  // A name that has only one family is not an error. If it has neither any more, both keep what they had.
  const bool none_now = v4->last.kind != Kind::found && v6->last.kind != Kind::found;
  for (const Lookup* const each : {v4, v6}) {
    if (each->last.kind != Kind::found && !none_now) continue;
    for (const IpAddress& address : each->last.addresses) {
      if (out.endpoints.size() == kNamedEndpoints) return;
      endpoint.endpoint.address = address;
      out.endpoints.push_back(endpoint);
    }
  }
  if (!v4->known || !v6->known) {
    if (out.endpoints.empty()) out.trouble = "not looked up yet";
  } else if (none_now || v4->failures > 0 || v6->failures > 0) {
    out.trouble = name + ": " + (v4->failures > 0 || none_now ? v4->trouble : v6->trouble);
  }
}

FoundName BackendNames::found(const std::string& name, bool srv) const {
  FoundName out;
  if (!srv) {
    add_addresses(name, {}, out);
  } else if (const auto at = lookups_.find({name, Type::srv}); at != lookups_.end()) {
    const Lookup& lookup = at->second;
    for (const NameLookup::Service& service : lookup.last.services) {
      NamedEndpoint endpoint;
      endpoint.endpoint.port = service.port;
      endpoint.priority = service.priority;
      endpoint.weight = std::max<uint16_t>(1, service.weight);
      add_addresses(service.target, endpoint, out);
    }
    if (!lookup.known) out.trouble = "not looked up yet";
    if (!lookup.trouble.empty()) out.trouble = name + ": " + lookup.trouble;
  }
  std::sort(out.endpoints.begin(), out.endpoints.end());
  out.endpoints.erase(std::unique(out.endpoints.begin(), out.endpoints.end()), out.endpoints.end());
  return out;
}

bool BackendNames::has_addresses_answered(const std::string& name) const {
  for (const Type type : {Type::a, Type::aaaa}) {
    const auto at = lookups_.find({name, type});
    if (at == lookups_.end() || !at->second.known) return false;
  }
  return true;
}

bool BackendNames::is_answered(const std::string& key) const {
  if (key.starts_with(kHostPrefix)) return has_addresses_answered(key.substr(kHostPrefix.size()));
  if (!key.starts_with(kSrvPrefix)) return false;
  const auto at = lookups_.find({key.substr(kSrvPrefix.size()), Type::srv});
  if (at == lookups_.end() || !at->second.known) return false;
  const std::vector<NameLookup::Service>& services = at->second.last.services;
  return std::all_of(services.begin(), services.end(),
                     [&](const NameLookup::Service& service) { return has_addresses_answered(service.target); });
}

void BackendNames::rebuild() {
  NameBook next;
  for (const auto& [name, bounds] : wanted_) {
    FoundName entry = found(name.first, name.second);
    const std::string key = std::string(name.second ? kSrvPrefix : kHostPrefix) + name.first;
    const auto before = book_->find(key);
    const std::string known = before == book_->end() ? std::string() : before->second.trouble;
    if (!entry.trouble.empty() && entry.trouble != known) {
      log_warn("backend {}: {}; {} addresses are kept", key, entry.trouble, entry.endpoints.size());
    }
    next.emplace(key, std::move(entry));
  }
  if (next == *book_) return;
  book_ = std::make_shared<const NameBook>(std::move(next));
  on_change_();
}

}  // namespace tidegate
