// SPDX-License-Identifier: Apache-2.0
// BackendNames: looks up the names of backends (`host`: A and AAAA; `srv`: SRV, then A and AAAA of its targets) and
// looks them up again when their TTL ends, within the bounds of the pool. Found endpoints do not make a new version.
// Control puts them into the live state. The proxy looks up the other names, and puts what it finds into its Plan.
//
// If a lookup fails, or finds nothing any more, the last endpoints stay, because an empty pool serves nobody. Probes,
// ejection and breakers find the addresses that no longer answer.
//
// Threads: the loop's.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "conf/live_state.h"
#include "conf/model.h"
#include "conf/model/pool.h"
#include "core/event_loop.h"
#include "core/ip.h"
#include "core/metrics.h"
#include "core/name_lookup.h"

namespace tidegate {

// Empty for a backend without a name, and for a server that was found by a name. Such a server still has `host`.
std::string name_key(const Backend& backend);
// The record of the backend's name in the book. Null if the backend has no name, or if the book has no record of it
// yet.
const FoundName* find_name(const NameBook* book, const Backend& backend);

class BackendNames {
 public:
  // `on_change` is called when the book has changed: once for several answers that come together.
  // `metric`: the name of the counter of look-ups.
  BackendNames(EventLoop& loop, Metrics& metrics, const char* metric, std::function<void()> on_change);

  // Looks up the names of these pools of the model from now on, and no others.
  void follow(const Model& model, const std::vector<uint32_t>& pools, const std::vector<Endpoint>& resolvers);
  // Follows the names of all pools.
  void follow(const Model& model, const std::vector<Endpoint>& resolvers);
  std::shared_ptr<const NameBook> book() const { return book_; }
  // True if each lookup for this key of the book has had an answer since follow() named it. A failure is an answer too.
  bool is_answered(const std::string& key) const;

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
  bool has_addresses_answered(const std::string& name) const;
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

}  // namespace tidegate
