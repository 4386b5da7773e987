// SPDX-License-Identifier: Apache-2.0
// Query: a table of the parameters that a path of the API or of an admin socket accepts, and the check of a query
// against it. A parameter that is unknown, given twice or of the wrong type is refused: a mistyped "dry_run" must not
// become a real write.
//
// Threads: any; nothing is shared.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tidegate {

enum class ParameterType : uint8_t {
  text,
  boolean,  // true or false
  number,   // decimal digits, between lowest and highest
  address,  // an IP address
};

struct QueryParameter {
  std::string name;
  std::string about;
  ParameterType type = ParameterType::text;
  uint64_t lowest = 0;  // of a number
  uint64_t highest = UINT64_MAX;

  static QueryParameter boolean(std::string name, std::string about) {
    return {std::move(name), std::move(about), ParameterType::boolean};
  }
  static QueryParameter number(std::string name, std::string about, uint64_t lowest = 0,
                               uint64_t highest = UINT64_MAX) {
    return {std::move(name), std::move(about), ParameterType::number, lowest, highest};
  }
  static QueryParameter address(std::string name, std::string about) {
    return {std::move(name), std::move(about), ParameterType::address};
  }
};

// Why a query is refused.
struct QueryFault {
  const char* code = "";  // "unknown_parameter", "repeated_parameter", "bad_parameter"
  std::string parameter;  // the parameter's name, decoded
  std::string given;
  std::string expected;
  std::string detail;  // the members above as one sentence
};

// Returns the first fault of `query` (without its '?'), or nothing.
std::optional<QueryFault> check_query(std::string_view query, const std::vector<QueryParameter>& known);

// "true or false", "a whole number from 1 to 1000", "an IP address", "text".
std::string expected_of(const QueryParameter& parameter);

// Accepts only decimal digits. Returns nothing for any other text, and for a number beyond 64 bits.
std::optional<uint64_t> parse_number(std::string_view text);

}  // namespace tidegate
