// SPDX-License-Identifier: Apache-2.0
#include "l7/exchange/conditions.h"

#include <algorithm>
#include <optional>

#include "core/http1.h"
#include "l7/exchange/sticky.h"

namespace tidegate::l7 {
namespace {

constexpr std::string_view kAnyValue = "*";

bool is_value(std::string_view wanted, std::string_view value) { return wanted == kAnyValue || wanted == value; }

int hex_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

// Compares without a copy. A malformed escape equals nothing.
bool decodes_to(std::string_view encoded, std::string_view plain) {
  size_t at = 0;
  for (size_t i = 0; i < encoded.size(); ++i, ++at) {
    char c = encoded[i] == '+' ? ' ' : encoded[i];
    if (c == '%') {
      if (i + 2 >= encoded.size()) return false;
      const int high = hex_value(encoded[i + 1]), low = hex_value(encoded[i + 2]);
      if (high < 0 || low < 0) return false;
      c = static_cast<char>(high * 16 + low);
      i += 2;
    }
    if (at >= plain.size() || plain[at] != c) return false;
  }
  return at == plain.size();
}

bool fields_have(const FieldList& fields, std::string_view name, std::string_view wanted) {
  for (const Field& field : fields) {
    if (http1::equals_ignore_case(field.name, name)) return is_value(wanted, field.value);
  }
  return false;
}

bool cookies_have(const FieldList& fields, std::string_view name, std::string_view wanted) {
  for (const Field& field : fields) {
    if (field.kind != FieldKind::cookie) continue;
    if (const std::string_view value = cookie_of(field.value, name); !value.empty()) return is_value(wanted, value);
  }
  return false;
}

}  // namespace

bool query_has(std::string_view query, std::string_view name, std::string_view value) {
  while (!query.empty()) {
    const std::string_view pair = query.substr(0, query.find('&'));
    query.remove_prefix(std::min(pair.size() + 1, query.size()));
    const size_t equals = std::min(pair.find('='), pair.size());
    if (!decodes_to(pair.substr(0, equals), name)) continue;
    return value == kAnyValue || decodes_to(pair.substr(std::min(equals + 1, pair.size())), value);
  }
  return false;
}

bool RequestConditions::meets(const RouteConditions& conditions, const RoutePatterns*) const {
  for (const auto& [name, value] : conditions.headers) {
    if (!fields_have(request_.fields, name, value)) return false;
  }
  for (const auto& [name, value] : conditions.query) {
    if (!query_has(request_.query, name, value)) return false;
  }
  for (const auto& [name, value] : conditions.cookies) {
    if (!cookies_have(request_.fields, name, value)) return false;
  }
  if (conditions.clients.empty()) return true;
  const std::optional<IpAddress> client = IpAddress::parse(client_);
  return client && std::any_of(conditions.clients.begin(), conditions.clients.end(),
                               [&](const Cidr& network) { return network.contains(*client); });
}

}  // namespace tidegate::l7
