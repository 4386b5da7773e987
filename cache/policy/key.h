// SPDX-License-Identifier: Apache-2.0
// The key under which a response is stored, and the variant that a request selects (RFC 9111 §2, §4.1). Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cache/limits.h"
#include "cache/message.h"
#include "conf/model/route.h"
#include "core/hash.h"

namespace tidegate::cache {

// The hash has a secret key. So no client can choose URLs that all fall into one bucket. The full key is compared on
// each hit.
struct KeyHash {
  uint64_t high = 0, low = 0;
  bool operator==(const KeyHash&) const = default;
};
struct HashKeys {
  HashKey high, low;
};
KeyHash hash_key(const HashKeys& keys, std::string_view text);

// Writes "https://www.example.com/path?query" into `out`: scheme and host in lower case, the default port dropped, path
// and query bytes as received. The route decides how much of the query counts: all, nothing, or the listed parameters
// in the list's order.
void make_key(const RequestView& request, const RouteCache& policy, std::string& out);
// The key of the absolute URL of a purge. Nothing if the text is no absolute URL. `policy` gives the query options.
std::optional<std::string> make_key(std::string_view url, const RouteCache& policy);

// The key of the same URL with the other scheme: https for http, http for https.
std::string other_scheme_key(std::string_view key);

// The names in Vary: lower case, sorted, once each, joined by ','. Empty if there are none. "*" was refused earlier.
std::string canonical_vary(Fields response_fields);

// True if `vary`, a result of canonical_vary(), contains the field's name.
bool is_nominated(std::string_view vary, std::string_view field_name);

// Writes the request's values of those names into `out`, one line for each name, and then its branch, if it has one.
// Several field lines are joined, and white space around commas is dropped. Accept-Encoding becomes its set of
// acceptable codings, so that all spellings and orders share one variant.
void vary_values(std::string_view vary, const RequestView& request, std::string& out);

// Identifies a variant under a key. 0: no Vary and no branch.
uint64_t variant_hash(const HashKeys& keys, std::string_view vary, std::string_view values);

// Keyed hashes of the words of Surrogate-Key (separated by spaces) and Cache-Tag (by commas), without case, once each.
uint64_t tag_hash(const HashKeys& keys, std::string_view tag);
std::vector<uint64_t> response_tags(const HashKeys& keys, Fields response_fields);

}  // namespace tidegate::cache

template <>
struct std::hash<tidegate::cache::KeyHash> {
  size_t operator()(const tidegate::cache::KeyHash& key) const noexcept { return key.low; }
};
