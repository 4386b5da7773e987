// SPDX-License-Identifier: Apache-2.0
// Names of fields, as policies compare them.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>

#include "conf/text.h"
#include "l7/wire/message.h"

namespace tidegate::l7::policy {

// True if two lower-case names are the same to CGI and similar readers, which read each byte except letters and digits
// as '-'.
inline bool reads_as(std::string_view name, std::string_view lower) {
  const auto plain = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ? c : '-'; };
  return std::equal(name.begin(), name.end(), lower.begin(), lower.end(),
                    [&](char a, char b) { return plain(a) == plain(b); });
}

// Removes the fields with other names that a backend could take for this one.
inline void remove_other_spellings(FieldList& fields, std::string_view lower) {
  fields.change_each([lower](const Field& field) { return field.name == lower || !reads_as(field.name, lower); });
}

// Removes each field that a backend could take for the one that the proxy adds under this name.
inline void remove_imitations(FieldList& fields, std::string_view lower) {
  fields.change_each([lower](const Field& field) { return !reads_as(field.name, lower); });
}

}  // namespace tidegate::l7::policy
