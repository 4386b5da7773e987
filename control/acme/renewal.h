// SPDX-License-Identifier: Apache-2.0
// When certificates are ordered, and when a failed order is tried again. Pure: times are arguments.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "conf/live_state.h"
#include "control/acme/messages.h"
#include "control/acme/order_flow.h"

namespace tidegate::acme {

// The time at which a certificate for `names` is to be ordered, in seconds since 1970; 0: at once. `record`: what is
// known of it; null: nothing. A certificate that serves is renewed within the authority's window (RFC 9773), or after
// two thirds of its life and up to a thirtieth more. The same certificate gives the same time on every host.
int64_t due_at_s(const IssuedCertificate* record, const std::vector<std::string>& names,
                 const std::optional<RenewalInfo>& info);

// When the authority wants the certificate of this record renewed, as it said last. Nothing: it has not said so.
std::optional<RenewalInfo> window_in(const IssuedCertificate& record);

// The pause after the try that failed as the `failures`-th in a row, so that no authority's limit is reached: 5 refused
// tries within an hour, fewer later. `random` is from 0 to 1.
uint64_t pause_after_failure_s(const Failure& failure, uint32_t failures, double random);

// Whether `offered` has every one of `names`, whatever the order.
bool same_names(std::vector<std::string> names, std::vector<std::string> offered);

}  // namespace tidegate::acme
