// SPDX-License-Identifier: Apache-2.0
// Checks how the keys of a document relate to each other: everything that a single value cannot show.
#pragma once

#include "conf/document_node.h"
#include "conf/fault_list.h"
#include "conf/model.h"

namespace tidegate {

// Adds every fault. The loader made `model` from `root`, element for element. `before`: a model without faults from
// which `model` was copied; what both share is not compared again. Null: there is none.
void validate(const DocumentNode& root, const Model& model, FaultList& faults, const Model* before = nullptr);

}  // namespace tidegate
