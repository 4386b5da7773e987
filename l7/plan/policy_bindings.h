// SPDX-License-Identifier: Apache-2.0
// PolicyBindings: which policies hold for a request, by its listener and its route. There are few different lists of
// policies, even with many routes. So listeners with equal lists are one set, and so are routes. Each pair of sets has
// one list.
//
// Immutable; any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "conf/model.h"

namespace tidegate::l7 {

struct PolicyBindings {
  struct List {
    // Indexes in Model::policies, each once: those that hold everywhere, those of the listener, those of the route.
    std::vector<uint32_t> policies;
    size_t of_every_route = 0;  // so many of the first ones hold on every route of the listener
    bool denies = false;        // the listener refuses what none of them allows
  };

  // Null if no policy holds there. `listener` and `route` are indexes in the Model, or kNone.
  const List* find(uint32_t listener, uint32_t route) const {
    return lists.empty() ? nullptr : &lists[place_of(listener, route)];
  }
  // Index in `lists`, which must not be empty.
  size_t place_of(uint32_t listener, uint32_t route) const {
    return size_t{set_of(set_of_listener, listener)} * route_sets + set_of(set_of_route, route);
  }
  // `sets`: set_of_listener or set_of_route.
  static uint32_t set_of(const std::vector<uint32_t>& sets, uint32_t index) {
    return index < sets.size() - 1 ? sets[index] : sets.back();
  }

  std::vector<uint32_t> set_of_listener, set_of_route;  // by index in the Model; the last element is for kNone
  size_t route_sets = 0;
  // By set of the listener, then of the route. Empty: no policy is bound anywhere, and no listener denies.
  std::vector<List> lists;
};

// The object of the previous version, whose Model is `before`, if all bindings are the same. Both may be null.
std::shared_ptr<const PolicyBindings> bind_policies(const Model& model, const Model* before,
                                                    const std::shared_ptr<const PolicyBindings>& previous);

}  // namespace tidegate::l7
