// SPDX-License-Identifier: Apache-2.0
// Scalars: what a value's text means under a field of the table, and the one canonical way to write it.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "conf/document_node.h"
#include "conf/fault_list.h"
#include "conf/fields.h"

namespace tidegate {

struct Decoded {
  std::optional<ScalarValue> value;
  Complaint complaint;  // when there is no value
};

// One value of the field (one item, when the field is a list). Files and references stay text: their path and name.
Decoded decode_scalar(const Field& field, const DocumentNode& node);

// "200ms" for 200, "1m" for 60000: the largest unit that keeps it whole. And so for bytes.
std::string duration_text(uint64_t ms);
std::string size_text(uint64_t bytes);

// As it stands in canonical JSON: equal values give equal JSON.
nlohmann::json scalar_json(const Field& field, const ScalarValue& value);
std::string scalar_text(const Field& field, const ScalarValue& value);

// What a value of the field looks like, within its bounds: "0 to 65535", "a duration from 10ms to 1h".
std::string expectation(const Field& field);

// The value in a sentence: "70000" for a number, "'70 000'" in quotes otherwise, "a list", "empty".
std::string described(const DocumentNode& node);

// Lower case, without the final dot ("." for the root); nothing when it is no domain name (RFC 1035 §2.3.1, and "_").
std::optional<std::string> canonical_domain(std::string_view text);

}  // namespace tidegate
