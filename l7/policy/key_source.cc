// SPDX-License-Identifier: Apache-2.0
#include "l7/policy/key_source.h"

#include <nlohmann/json.hpp>

#include "core/clock.h"

namespace tidegate::l7::policy {

const std::vector<Jwk>* KeySource::keys() const {
  const uint64_t generation = generation_.load(std::memory_order_acquire);
  if (generation == 0) return nullptr;
  const size_t thread = metric_thread_index();
  if (thread + 1 < kMaxMetricThreads) {
    Hold& hold = holds_[thread];
    if (hold.generation != generation) renew(hold, generation);
    return hold.keys.get();
  }
  // Threads beyond that number share the last place, so each takes a new reference.
  thread_local Hold own;
  renew(own, generation);
  return own.keys.get();
}

void KeySource::renew(Hold& hold, uint64_t generation) const {
  const MutexLock lock(mutex_);
  hold.keys = keys_;
  hold.generation = generation;
}

bool KeySource::take(const std::string& text, std::vector<Jwk> keys, uint64_t now_ns) {
  fetches_.add();
  good_ns_ = now_ns;
  trouble_.clear();
  if (text == text_) return false;
  text_ = text;
  {
    const MutexLock lock(mutex_);
    keys_ = std::make_shared<const std::vector<Jwk>>(std::move(keys));
  }
  static std::atomic<uint64_t> sets{0};
  generation_.store(sets.fetch_add(1, std::memory_order_relaxed) + 1, std::memory_order_release);
  return true;
}

bool KeySource::fail_with(const std::string& trouble) {
  failures_.add();
  if (trouble == trouble_) return false;
  trouble_ = trouble;
  return true;
}

void KeySource::explain(uint64_t now_ns, nlohmann::json& out) const {
  const std::vector<Jwk>* const known = keys();
  out["url"] = terms_.url;
  out["count"] = known == nullptr ? 0 : known->size();
  if (known != nullptr) out["age_s"] = (now_ns - good_ns_) / kNsPerS;
  if (!trouble_.empty()) out["trouble"] = trouble_;
}

void KeySource::add_samples(uint64_t now_ns, std::vector<Sample>& out) const {
  const std::vector<Jwk>* const known = keys();
  out.push_back({"tidegate_l7_jwks_fetches_total", "counter", "JWK sets that were fetched", fetches_.value()});
  out.push_back({"tidegate_l7_jwks_failures_total", "counter", "Fetches of a JWK set that failed, or brought none",
                 failures_.value()});
  out.push_back({"tidegate_l7_jwks_early_total", "counter",
                 "Fetches of a JWK set before their time, because a token named an unknown key", early_.value()});
  out.push_back(
      {"tidegate_l7_jwks_keys", "gauge", "Keys of the JWK set in force", known == nullptr ? 0 : known->size()});
  out.push_back({"tidegate_l7_jwks_age_seconds", "gauge", "Since the JWK set in force was last fetched; 0 without one",
                 known == nullptr ? 0 : (now_ns - good_ns_) / kNsPerS});
}

}  // namespace tidegate::l7::policy
