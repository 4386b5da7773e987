// SPDX-License-Identifier: Apache-2.0
#include "l7/exchange/conditions.h"

#include <algorithm>
#include <optional>
#include <string>

#include "core/http1.h"
#include "l7/exchange/sticky.h"
#include "l7/route/patterns.h"

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

// The value of the field, or nothing if there is no such field. If the field occurs several times, its values are one
// list (RFC 9110 §5.3), valid until the next call on this thread. With the first value alone, a client could hide a
// second one from a rule, but not from the backend.
std::optional<std::string_view> field_value(const FieldList& fields, std::string_view name) {
  thread_local std::string list;  // static, so that its memory is used again
  const Field* first = nullptr;
  bool several = false;
  for (const Field& field : fields) {
    if (!http1::equals_ignore_case(field.name, name)) continue;
    if (first == nullptr) {
      first = &field;
      continue;
    }
    if (!several) list = first->value;
    several = true;
    list += field.kind == FieldKind::cookie ? "; " : ", ";
    list += field.value;
  }
  if (first == nullptr) return std::nullopt;
  return several ? std::string_view(list) : first->value;
}

bool fields_have(const FieldList& fields, std::string_view name, std::string_view wanted) {
  const std::optional<std::string_view> value = field_value(fields, name);
  return value && is_value(wanted, *value);
}

// The first parameter with that name, as "name=value". Nothing if there is none. A name with a malformed escape is not
// a name.
std::optional<std::string_view> first_parameter(std::string_view query, std::string_view name) {
  while (!query.empty()) {
    const std::string_view pair = query.substr(0, query.find('&'));
    query.remove_prefix(std::min(pair.size() + 1, query.size()));
    if (decodes_to(pair.substr(0, pair.find('=')), name)) return pair;
  }
  return std::nullopt;
}

std::string_view value_of_pair(std::string_view pair) {
  return pair.substr(std::min(std::min(pair.find('='), pair.size()) + 1, pair.size()));
}

// The decoded value of a parameter, valid until the next call on this thread. Nothing if there is no such parameter, or
// if it is malformed.
std::optional<std::string_view> query_value(std::string_view query, std::string_view name) {
  thread_local std::string decoded;  // static, so that its memory is used again
  const std::optional<std::string_view> pair = first_parameter(query, name);
  if (!pair) return std::nullopt;
  const std::string_view value = value_of_pair(*pair);
  decoded.clear();
  for (size_t i = 0; i < value.size(); ++i) {
    if (value[i] != '%') {
      decoded += value[i] == '+' ? ' ' : value[i];
      continue;
    }
    if (i + 2 >= value.size()) return std::nullopt;
    const int high = hex_value(value[i + 1]), low = hex_value(value[i + 2]);
    if (high < 0 || low < 0) return std::nullopt;
    decoded += static_cast<char>(high * 16 + low);
    i += 2;
  }
  return decoded;
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
  const std::optional<std::string_view> pair = first_parameter(query, name);
  return pair && (value == kAnyValue || decodes_to(value_of_pair(*pair), value));
}

// A field or parameter that is not there matches no expression, not even one that matches an empty text.
bool RequestConditions::meets_patterns(const RoutePatterns& patterns) const {
  for (const auto& [name, regex] : patterns.headers()) {
    const std::optional<std::string_view> value = field_value(request_.fields, name);
    if (!value || !regex.takes_whole(*value)) return false;
  }
  for (const auto& [name, regex] : patterns.query()) {
    const std::optional<std::string_view> value = query_value(request_.query, name);
    if (!value || !regex.takes_whole(*value)) return false;
  }
  return true;
}

bool RequestConditions::meets(const RouteConditions& conditions, const RoutePatterns* patterns) const {
  if (patterns != nullptr && !meets_patterns(*patterns)) return false;
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
