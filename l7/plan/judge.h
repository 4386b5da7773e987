// SPDX-License-Identifier: Apache-2.0
// The faults in a version's content: parts that the proxy would refuse, or could serve to no client. The functions that
// find them are those by which the proxy makes its routes and TLS contexts. Facts of a host are not part of it.
#pragma once

#include <vector>

#include "conf/fault.h"
#include "conf/model.h"

namespace tidegate::l7 {

// Pure: any thread. Every fault, each with the pointer to its value. `before`: a version that serves already, whose
// elements are not judged again where the Model shares them; null: none. Verdicts about certificates are remembered by
// content.
std::vector<Fault> judge(const Model& model, const Model* before);

}  // namespace tidegate::l7
