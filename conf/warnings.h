// SPDX-License-Identifier: Apache-2.0
// Warnings: what a document may say, and what is surely not meant.
#pragma once

#include <cstdint>
#include <vector>

#include "conf/document.h"

namespace tidegate {

// Certificates that are over, not begun, or do not cover the hosts of their listener's routes; redirects to themselves;
// probes that outlast their interval; pools, probes and certificates that nothing uses. `model` is what load_model()
// made of `document`; `now_s`: epoch.
std::vector<Fault> find_warnings(const Document& document, const Model& model, int64_t now_s);

}  // namespace tidegate
