// SPDX-License-Identifier: Apache-2.0
// CompiledSteer: a steer compiled for queries. Its candidates are the possible answers, grouped into classes. All
// candidates of a class are equally good. choose() (choose.h) decides.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "conf/model.h"
#include "conf/model/steer.h"
#include "core/ip.h"
#include "dns/limits.h"
#include "dns/steer/health.h"
#include "dns/steer/ranking_index.h"

namespace tidegate::dns {

// One possible answer: an address, the answer of another steer, or the addresses of an alias.
struct Candidate {
  enum class Kind : uint8_t { address, steer, alias };
  std::array<uint8_t, 16> address{};  // IPv4 uses the first four
  uint64_t identity = 0;              // for `sticky`: the same in every version and both families
  uint32_t health = 0;                // index into Health; for a steer or an alias the one of its target
  uint32_t target_health = 0;         // index into Health, of the candidate's target
  uint32_t site = kNone;
  uint32_t target = 0;      // index into Steer::targets
  uint32_t led_to = kNone;  // index of the steer, or into Authority::aliases
  // Under `weighted`, within its target: the weight of the backend, for a pool. Otherwise its share of its class: the
  // target's weight, divided among its addresses by their backends' weights.
  uint32_t weight = 0;
  Kind kind = Kind::address;
};

// Candidates [begin, end), which are equally good.
struct CandidateClass {
  uint32_t key = 0;  // `nearest` and `shed`: the site, kNone last. `sticky` and `multivalue`: 0. Otherwise the target.
  uint32_t begin = 0, end = 0;
};

// A port at which our own TLS listeners serve a name.
struct HttpsService {
  uint16_t port = 443;
  bool http2 = true;  // all of them support HTTP/2
};

struct CompiledSteer {
  struct Family {
    std::vector<Candidate> candidates;    // sorted by class
    std::vector<CandidateClass> classes;  // sorted by key
    uint32_t ranking = kNone;             // the RankingMap that orders the classes; kNone: they are in order

    std::span<const Candidate> of(const CandidateClass& c) const {
      return std::span(candidates).subspan(c.begin, c.end - c.begin);
    }
    // Null if there is no such class.
    const CandidateClass* find(uint32_t key) const {
      const auto at = std::lower_bound(classes.begin(), classes.end(), key,
                                       [](const CandidateClass& c, uint32_t k) { return c.key < k; });
      return at != classes.end() && at->key == key ? &*at : nullptr;
    }
  };

  uint32_t model_index = 0;
  SteerPolicy policy = SteerPolicy::nearest;
  AllDown all_down = AllDown::open;
  bool leads_on = false;  // some target is a steer or an alias
  uint8_t client_prefix_v4 = 24, client_prefix_v6 = 56;
  uint32_t ttl_s = 0;
  uint32_t max_answers = 1;
  uint64_t name_hash = 0;
  std::vector<uint32_t> target_weights;
  Family v4, v6;
  std::vector<HttpsService> https;  // for an answer of type HTTPS; empty: there is none

  const Family& of(IpAddress::Family family) const { return family == IpAddress::Family::v4 ? v4 : v6; }
};

// FNV-1a, then mixed. It has no secret, so the hash of a text is the same on every server and in every version.
uint64_t hash_of_text(std::string_view text);

// The names of all aliases of the steers, sorted, each once.
std::vector<std::string> alias_names(const Model& model);

// `aliases` are alias_names(). Registers the rankings that the steer needs in `rankings`.
CompiledSteer compile_steer(const Model& model, uint32_t steer_index, const HealthLayout& layout,
                            const std::vector<std::string>& aliases, RankingIndex& rankings);
// Every site to which a steer, or the list of HTTPDNS's own addresses, may send a client.
std::vector<uint32_t> steered_sites(const Model& model);

}  // namespace tidegate::dns
