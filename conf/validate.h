// What the keys of a document mean to each other: everything that a single value cannot show.
#pragma once

#include "conf/document_node.h"
#include "conf/fault_list.h"
#include "conf/model.h"

namespace tidegate {

// Adds every fault. `model` is what the loader made of `root`, element for element; it is completed where a default
// depends on another key (the status of a redirect).
void validate(const DocumentNode& root, Model& model, FaultList& faults);

}  // namespace tidegate
