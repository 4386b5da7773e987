// SPDX-License-Identifier: Apache-2.0
// BackendNames: looks up the names of backends (`host`: A and AAAA; `srv`: SRV, then A and AAAA of its targets) and
// looks them up again when their TTL ends, within the bounds of the pool. It works on the main thread's loop. Workers
// get what it found with a Plan: discovered endpoints are no version.
//
// A lookup that fails, or finds nothing any more, keeps what was found last: addresses that no longer answer are for
// ejection and breakers to judge, and an empty pool serves nobody.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "conf/model.h"
#include "core/event_loop.h"
#include "core/ip.h"
#include "core/metrics.h"
#include "core/name_lookup.h"

namespace tidegate::l7 {

struct NamedEndpoint {
  Endpoint endpoint;      // port 0: the backend's
  uint16_t priority = 0;  // of SRV: others are used when the smallest are not enough
  uint16_t weight = 1;    // of SRV; at least 1
  auto operator<=>(const NamedEndpoint&) const = default;
};

// What a name is known to lead to.
struct FoundName {
  std::vector<NamedEndpoint> endpoints;  // sorted
  std::string trouble;                   // why the last lookup found nothing new; empty: it did
  bool operator==(const FoundName&) const = default;
};
// By "host NAME" or "srv NAME".
using NameBook = std::map<std::string, FoundName>;
// Empty for a backend without a name.
std::string name_key(const Backend& backend);
// What its name leads to; null: it has none, or it is not known yet.
const FoundName* find_name(const NameBook* book, const Backend& backend);

class BackendNames {
 public:
  // `on_change` is called when the book has changed: once for several answers that come together.
  BackendNames(EventLoop& loop, Metrics& metrics, std::function<void()> on_change);

  // Looks up the names of this model's pools from now on, and no others.
  void follow(const Model& model, const std::vector<Endpoint>& resolvers);
  std::shared_ptr<const NameBook> book() const { return book_; }

 private:
  using Type = NameLookup::Type;
  struct Bounds {
    uint64_t least_ms = UINT64_MAX, most_ms = UINT64_MAX;
    void narrow(const Bounds& other);
  };
  struct Lookup {
    uint64_t due_ns = 0;
    uint64_t asked = 0;  // number of the question under way; 0: none
    uint32_t failures = 0;
    Bounds bounds;
    bool known = false;  // it was answered
    NameLookup::Answer last;
    std::string trouble;
  };
  using Key = std::pair<std::string, Type>;

  void want_all();
  void want(const std::string& name, Type type, const Bounds& bounds, std::map<Key, Lookup>& next);
  void run_due();
  void answered(const Key& key, uint64_t number, NameLookup::Answer&& answer);
  void rebuild();
  FoundName found(const std::string& name, bool srv) const;
  void add_addresses(const std::string& name, NamedEndpoint endpoint, FoundName& out) const;

  EventLoop& loop_;
  std::function<void()> on_change_;
  std::vector<Endpoint> resolvers_;
  std::map<std::pair<std::string, bool>, Bounds> wanted_;  // name and whether it is SRV
  std::map<Key, Lookup> lookups_;
  std::unique_ptr<NameLookup> lookup_;
  std::shared_ptr<const NameBook> book_ = std::make_shared<const NameBook>();
  uint64_t questions_ = 0;
  Counter &found_, &none_, &failed_;
  Timer due_, changed_;
};

}  // namespace tidegate::l7
