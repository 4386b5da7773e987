// SPDX-License-Identifier: Apache-2.0
#include "conf/model.h"

#include "conf/model/node.h"

namespace tidegate {

uint32_t Model::node_index(std::string_view name) const {
  for (uint32_t i = 0; i < nodes.size(); ++i) {
    if (nodes[i].name == name) return i;
  }
  return kNone;
}

}  // namespace tidegate
