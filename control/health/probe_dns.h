// SPDX-License-Identifier: Apache-2.0
// The query of a DNS probe, and the evaluation of an answer. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace tidegate {

// In wire form (RFC 1035 §4.1), with recursion desired. `name` is a domain name that validation accepted; "." is the
// root.
std::string dns_probe_query(uint16_t id, std::string_view name, std::string_view type);

// The fault of an answer: "answers SERVFAIL, expected NOERROR". Empty: the answer has the expected code. Nothing: the
// message is not an answer to the query, so the probe continues to wait.
std::optional<std::string> dns_probe_fault(std::string_view answer, uint16_t id, std::string_view expected_rcode);

}  // namespace tidegate
