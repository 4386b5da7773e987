// SPDX-License-Identifier: Apache-2.0
// The name under which a response is stored, and the variant of it that a request selects (RFC 9111 §2, §4.1). Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cache/limits.h"
#include "cache/message.h"
#include "conf/model.h"
#include "core/hash.h"

namespace tidegate::cache {

// Keyed, so that nobody outside can aim requests at one bucket; the full key is compared on each hit all the same.
struct KeyHash {
  uint64_t high = 0, low = 0;
  bool operator==(const KeyHash&) const = default;
};
struct HashKeys {
  HashKey high, low;
};
KeyHash hash_key(const HashKeys& keys, std::string_view text);

// "https://www.example.com/path?query" into `out` (replaced): scheme and host in lower case, default port dropped, path
// and query bytes as received. The query by the route: all of it, none, or the listed parameters in the list's order.
void make_key(const RequestView& request, const RouteCache& policy, std::string& out);
// The same from a purge's absolute URL; nothing when it is not one. The route's query options are applied by the
// caller's choice of `policy`.
std::optional<std::string> make_key(std::string_view url, const RouteCache& policy);

// The names in Vary: lower case, sorted, once each, joined by ','. Empty: none. "*" never gets here (policy refuses
// it).
std::string canonical_vary(Fields response_fields);

// Whether such a list names the field.
bool is_nominated(std::string_view vary, std::string_view field_name);

// The request's values of those names into `out` (replaced), one line a name: several field lines joined, white space
// around commas dropped. Accept-Encoding is reduced to its set of acceptable codings, so that spellings and orders
// share one variant.
void vary_values(std::string_view vary, Fields request_fields, std::string& out);

// Identifies a variant under a key; 0 for no Vary.
uint64_t variant_hash(const HashKeys& keys, std::string_view vary, std::string_view values);

// Keyed hashes of the words of Surrogate-Key (space separated) and Cache-Tag (comma separated), in any case, each once.
uint64_t tag_hash(const HashKeys& keys, std::string_view tag);
std::vector<uint64_t> response_tags(const HashKeys& keys, Fields response_fields);

}  // namespace tidegate::cache

template <>
struct std::hash<tidegate::cache::KeyHash> {
  size_t operator()(const tidegate::cache::KeyHash& key) const noexcept { return key.low; }
};
