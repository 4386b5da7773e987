// SPDX-License-Identifier: Apache-2.0
// The query of a DNS probe, and what an answer says. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace tidegate {

// In wire form (RFC 1035 §4.1), with recursion desired. `name` is a domain name that validation accepted; "." is the
// root.
std::string dns_probe_query(uint16_t id, std::string_view name, std::string_view type);

// Nothing: the message is no answer to that query, so the wait goes on. An empty text: the answer has the expected
// code. Otherwise what is wrong: "answers SERVFAIL, expected NOERROR".
std::optional<std::string> dns_probe_fault(std::string_view answer, uint16_t id, std::string_view expected_rcode);

}  // namespace tidegate
