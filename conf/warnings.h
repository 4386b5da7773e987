// SPDX-License-Identifier: Apache-2.0
// Warnings: what a document may say, but its author surely did not mean.
#pragma once

#include <cstdint>
#include <vector>

#include "conf/document.h"
#include "conf/model.h"

namespace tidegate {

// Warns about certificates that have expired, are not valid yet, or do not cover the hosts of their listener's routes;
// redirects to themselves; policies that read who the client is where nothing authenticates; certificates that need a
// stapled OCSP answer, while `ocsp` is off; ordered certificates whose proofs the authority cannot see; probes that
// take longer than their interval; pools, probes and certificates that nothing uses. load_model() made `model` from
// `document`. `now_s` is the time since the epoch.
std::vector<Fault> find_warnings(const Document& document, const Model& model, int64_t now_s);

}  // namespace tidegate
