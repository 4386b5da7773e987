// SPDX-License-Identifier: Apache-2.0
// KeySource: a JWK set that is fetched from a URL and read by the rules of all workers. Policies with the same URL
// share one. It survives versions, and keeps the last good set if later fetches fail.
//
// Threads: reading and note_unknown_key() are for any thread. Each thread has its own reference to the set, so reading
// takes no lock while the set stays the same. Everything else belongs to the main thread (KeyFetcher).
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "conf/policy/jwks.h"
#include "core/metrics.h"
#include "core/mutex.h"
#include "l7/policy/policy.h"

namespace tidegate::l7::policy {

class KeySource final : public Runtime {
 public:
  struct Terms {
    std::string url;
    std::string ca_pem;  // empty: the system's authorities
  };
  explicit KeySource(Terms terms) : terms_(std::move(terms)) {}
  const Terms& terms() const { return terms_; }

  // --- any thread
  // The present set of keys. Null: none was fetched yet. Valid until this thread's next call.
  const std::vector<Jwk>* keys() const;
  // Number of the set. Another set has another number, one of another source too: what is remembered of tokens outlives
  // a source.
  uint64_t generation() const { return generation_.load(std::memory_order_acquire); }
  // A token names a key that is not in the set: the issuer may have new keys.
  void note_unknown_key() {
    if (!unknown_.load(std::memory_order_relaxed)) unknown_.store(true, std::memory_order_relaxed);
  }

  // --- main thread
  bool has_unknown_key() const { return unknown_.load(std::memory_order_relaxed); }
  void forget_unknown_key() { unknown_.store(false, std::memory_order_relaxed); }
  // A fetch returned this. Returns true if it differs from the previous set.
  bool take(const std::string& text, std::vector<Jwk> keys, uint64_t now_ns);
  // A fetch failed. Returns true if this is a new trouble.
  bool fail_with(const std::string& trouble);
  void count_early() { early_.add(); }
  void explain(uint64_t now_ns, nlohmann::json& out) const;
  void add_samples(uint64_t now_ns, std::vector<Sample>& out) const;

 private:
  using Keys = std::shared_ptr<const std::vector<Jwk>>;
  struct alignas(64) Hold {
    uint64_t generation = 0;
    Keys keys;
  };
  void renew(Hold& hold, uint64_t generation) const;

  const Terms terms_;
  std::atomic<uint64_t> generation_{0};  // number of the set; 0: none yet
  std::atomic<bool> unknown_{false};
  mutable Mutex mutex_;
  Keys keys_ TIDEGATE_GUARDED_BY(mutex_);
  mutable std::array<Hold, kMaxMetricThreads> holds_;  // by thread
  std::string text_, trouble_;
  uint64_t good_ns_ = 0;  // when the last good set came
  Counter fetches_, failures_, early_;
};

}  // namespace tidegate::l7::policy
