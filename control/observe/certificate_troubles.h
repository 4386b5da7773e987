// SPDX-License-Identifier: Apache-2.0
// The part of the edge's status about certificates: how many are ordered and stapled, and which are in trouble. Pure.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>

#include "conf/live_state.h"
#include "conf/model.h"
#include "conf/model/certificate.h"

namespace tidegate {

// {"ordered": N, "stapled": N, "in_trouble": N, "troubles": [{"certificate", "what", "next_try_s"}]}, with at most
// kMaxCertificateTroubles of them. An ordered certificate is in trouble if it is not issued, has expired, or its last
// order failed. A certificate with `ocsp` is in trouble if it is revoked or has no good answer. next_try_s: epoch.
nlohmann::json certificate_troubles(const Model& model, const LiveState& live_state, int64_t now_s);

// The known facts about the certificate's revocation: {"state", "this_update_s", "next_update_s", "next_try_s",
// "failures", "error"}; members without a value are left out. "state" is ocsp::state_word().
nlohmann::json describe_staple(const Certificate& certificate, const LiveState& live_state, int64_t now_s);

}  // namespace tidegate
