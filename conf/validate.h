// SPDX-License-Identifier: Apache-2.0
// What the keys of a document mean to each other: everything that a single value cannot show.
#pragma once

#include "conf/document_node.h"
#include "conf/fault_list.h"
#include "conf/model.h"

namespace tidegate {

// Adds every fault. `model` is what the loader made of `root`, element for element; its defaults are settled.
void validate(const DocumentNode& root, Model& model, FaultList& faults);

// Defaults that depend on another key: the status of a redirect.
void settle_defaults(Model& model);

}  // namespace tidegate
