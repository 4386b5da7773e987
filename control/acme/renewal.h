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

// The time at which a certificate for `names` must be ordered, in seconds since 1970; 0: at once. `record`: the record
// of that certificate; null: there is none. A valid certificate is renewed within the authority's window (RFC 9773), or
// after two thirds of its lifetime plus up to a thirtieth. The same certificate gives the same time on every host.
int64_t due_at_s(const IssuedCertificate* record, const std::vector<std::string>& names,
                 const std::optional<RenewalInfo>& info);

// The last window in which the authority wants the certificate of this record renewed. Nothing if it has not named one.
std::optional<RenewalInfo> window_in(const IssuedCertificate& record);

// The pause after `failures` failed tries in a row. It keeps within the limits of all authorities: 5 refused tries in
// the first hour, fewer later. `random` is from 0 to 1.
uint64_t pause_after_failure_s(const Failure& failure, uint32_t failures, double random);

// True if `offered` contains each of `names`, in any order.
bool same_names(std::vector<std::string> names, std::vector<std::string> offered);

}  // namespace tidegate::acme
