// SPDX-License-Identifier: Apache-2.0
// ListCache: the SourceLists of a model. They are compiled again only if their content has changed. A change of health
// keeps the model, and most changes of a model keep its lists.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "conf/fault.h"
#include "conf/model.h"
#include "l4/plan/guard.h"

namespace tidegate::l4 {

class ListCache {
 public:
  struct Compiled {
    std::shared_ptr<const SourceLists> lists;
    std::string digest;  // digest of all their networks
  };
  // Null if the model has no lists. `countries`: the networks of the countries in its lists; null if there are none.
  Result<std::shared_ptr<const Compiled>> compile(const std::shared_ptr<const Model>& model,
                                                  const std::shared_ptr<const CountryNetworks>& countries);

 private:
  std::shared_ptr<const Model> model_;
  std::shared_ptr<const CountryNetworks> countries_;
  std::shared_ptr<const Compiled> compiled_;
};

// A fault if no forwarder can compile the model's lists. Each list is sound by itself; together they may overlap in too
// many ways. The networks of countries are not known here. The lists that were judged last are remembered. Any thread.
void judge_lists(const Model& model, std::vector<Fault>& faults);

}  // namespace tidegate::l4
