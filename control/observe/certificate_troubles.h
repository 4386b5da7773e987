// SPDX-License-Identifier: Apache-2.0
// What the status of the edge says of certificates: how many are ordered and stapled, and which are in trouble. Pure.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>

#include "conf/live_state.h"
#include "conf/model.h"

namespace tidegate {

// {"ordered": N, "stapled": N, "in_trouble": N, "troubles": [{"certificate", "what", "next_try_s"}]}, with at most
// kMaxCertificateTroubles of them. In trouble is an ordered certificate that is not issued, has ended, or whose last
// order failed, and one with `ocsp` that is revoked or has no good answer. next_try_s: epoch.
nlohmann::json certificate_troubles(const Model& model, const LiveState& live_state, int64_t now_s);

// What is known of its revocation: {"state", "this_update_s", "next_update_s", "next_try_s", "failures", "error"}; the
// members that say nothing are left out. State: as of ocsp::state_word.
nlohmann::json describe_staple(const Certificate& certificate, const LiveState& live_state, int64_t now_s);

}  // namespace tidegate
