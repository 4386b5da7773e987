// SPDX-License-Identifier: Apache-2.0
#include "conf/query.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "conf/names.h"
#include "core/http1.h"
#include "core/ip.h"
#include "core/percent.h"

namespace tidegate {
namespace {

bool is_of_type(const QueryParameter& parameter, std::string_view value) {
  switch (parameter.type) {
    case ParameterType::text:
      return true;
    case ParameterType::boolean:
      return value == "true" || value == "false";
    case ParameterType::number: {
      const std::optional<uint64_t> number = parse_number(value);
      return number && *number >= parameter.lowest && *number <= parameter.highest;
    }
    case ParameterType::address:
      return IpAddress::parse(value).has_value();
  }
  return false;
}

QueryFault unknown_parameter(std::string name, const std::vector<QueryParameter>& known) {
  std::vector<std::string_view> names;
  for (const QueryParameter& parameter : known) names.push_back(parameter.name);
  const std::string expected = names.empty() ? "no parameter" : one_of(names);
  const std::string hint = did_you_mean(name, names);
  std::string detail = fmt::format("there is no parameter {} here; expected: {}{}{}", in_quotes(name), expected,
                                   hint.empty() ? "" : "; ", hint);
  return {"unknown_parameter", std::move(name), "", expected, std::move(detail)};
}

QueryFault bad_value(std::string name, std::string given, std::string expected) {
  std::string detail = fmt::format("{}: {} was given, {} is expected", name, in_quotes(given), expected);
  return {"bad_parameter", std::move(name), std::move(given), std::move(expected), std::move(detail)};
}

}  // namespace

std::optional<uint64_t> parse_number(std::string_view text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::string expected_of(const QueryParameter& parameter) {
  switch (parameter.type) {
    case ParameterType::text:
      return "text";
    case ParameterType::boolean:
      return "true or false";
    case ParameterType::number:
      if (parameter.highest == UINT64_MAX && parameter.lowest == 0) return "a whole number";
      if (parameter.highest == UINT64_MAX) return fmt::format("a whole number, {} at least", parameter.lowest);
      return fmt::format("a whole number from {} to {}", parameter.lowest, parameter.highest);
    case ParameterType::address:
      return "an IP address";
  }
  return "text";
}

std::optional<QueryFault> check_query(std::string_view query, const std::vector<QueryParameter>& known) {
  std::vector<const QueryParameter*> seen;
  while (!query.empty()) {
    const std::string_view pair = query.substr(0, query.find('&'));
    query.remove_prefix(std::min(pair.size() + 1, query.size()));
    if (pair.empty()) continue;
    const size_t equals = std::min(pair.find('='), pair.size());
    const std::string_view raw_name = pair.substr(0, equals);
    const std::string_view raw_value = pair.substr(std::min(equals + 1, pair.size()));
    std::optional<std::string> name = percent_decode(raw_name, true);
    if (!name) return bad_value(std::string(raw_name), std::string(raw_name), "a name with whole percent escapes");
    const auto parameter =
        std::find_if(known.begin(), known.end(), [&](const auto& each) { return each.name == *name; });
    if (parameter == known.end()) return unknown_parameter(*std::move(name), known);
    if (std::find(seen.begin(), seen.end(), &*parameter) != seen.end()) {
      std::string detail = fmt::format("{}: it was given twice, once is expected", *name);
      return QueryFault{"repeated_parameter", *std::move(name), std::string(raw_value), "it once", std::move(detail)};
    }
    seen.push_back(&*parameter);
    std::optional<std::string> value = percent_decode(raw_value, true);
    if (!value) return bad_value(*std::move(name), std::string(raw_value), "a value with whole percent escapes");
    if (!is_of_type(*parameter, *value)) return bad_value(*std::move(name), *std::move(value), expected_of(*parameter));
  }
  return std::nullopt;
}

}  // namespace tidegate
