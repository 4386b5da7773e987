// SPDX-License-Identifier: Apache-2.0
// Helpers to read header fields, shared by the cache's files. Pure; nothing allocates.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "cache/message.h"

namespace tidegate::cache {

constexpr char to_lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c; }

constexpr bool same_name(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    if (to_lower(a[i]) != to_lower(b[i])) return false;
  }
  return true;
}

constexpr std::string_view trim(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

// The first field of that name, or nullptr.
inline const http1::Field* find_field(Fields fields, std::string_view name) {
  for (const http1::Field& field : fields) {
    if (same_name(field.name, name)) return &field;
  }
  return nullptr;
}

// Calls fn(element) for each element of the list that all fields of that name form together (RFC 9110 §5.3).
template <class Fn>
void for_each_list_element(Fields fields, std::string_view name, Fn&& fn) {
  for (const http1::Field& field : fields) {
    if (same_name(field.name, name)) http1::for_each_element(field.value, fn);
  }
}

constexpr uint64_t kMaxDeltaSeconds = uint64_t{1} << 31;  // RFC 9111 §1.2.2

// Reads delta-seconds: digits only; more than 2^31 becomes 2^31.
constexpr std::optional<uint64_t> parse_delta_seconds(std::string_view text) {
  if (text.empty()) return std::nullopt;
  uint64_t value = 0;
  for (const char c : text) {
    if (c < '0' || c > '9') return std::nullopt;
    value = value * 10 + static_cast<uint64_t>(c - '0');
    if (value > kMaxDeltaSeconds) value = kMaxDeltaSeconds;
  }
  return value;
}

}  // namespace tidegate::cache
