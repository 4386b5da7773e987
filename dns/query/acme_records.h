// SPDX-License-Identifier: Apache-2.0
// dns-01 (RFC 8555 §8.4): the TXT records at _acme-challenge.NAME that an authority reads while a certificate is
// ordered. They are in the live state and not in zones, so no zone changes for them.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "conf/live_state.h"

namespace tidegate::dns {

namespace rrtype {
constexpr uint16_t kTxt = 16;  // only these records do not come from a zone
}
constexpr uint32_t kAcmeTtlS = 1;  // short, because the next order has another record

// The rdata of each record, by the owner's name in lower case and wire form.
using AcmeRecords = std::map<std::string, std::vector<std::string>, std::less<>>;
AcmeRecords acme_records(const LiveState& live_state);

}  // namespace tidegate::dns
