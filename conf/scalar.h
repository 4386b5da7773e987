// SPDX-License-Identifier: Apache-2.0
// Scalars: what the text of a value means for a field of the table, and its one canonical spelling.
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
  Complaint complaint;  // set if there is no value
};

// Decodes one value of the field (one item, if the field is a list). Files stay paths, and references stay names.
Decoded decode_scalar(const Field& field, const DocumentNode& node);

// "200ms" for 200, "1m" for 60000: the largest unit that gives a whole number. The next function does the same for
// bytes.
std::string duration_text(uint64_t ms);
std::string size_text(uint64_t bytes);

// The value in canonical JSON: equal values give equal JSON.
nlohmann::json scalar_json(const Field& field, const ScalarValue& value);
std::string scalar_text(const Field& field, const ScalarValue& value);

// The expected form of the field's value, with its bounds: "0 to 65535", "a duration from 10ms to 1h".
std::string expectation(const Field& field);

// The value for a sentence: "70000" for a number, "'70 000'" in quotes for other text, "a list", "empty".
std::string described(const DocumentNode& node);

// Lower case, without the final dot ("." for the root). Returns nothing if it is not a domain name (RFC 1035 §2.3.1,
// and "_").
std::optional<std::string> canonical_domain(std::string_view text);

}  // namespace tidegate
