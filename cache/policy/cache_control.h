// SPDX-License-Identifier: Apache-2.0
// Cache-Control of requests and responses (RFC 9111 §5.2), and its targeted form CDN-Cache-Control (RFC 9213). Pure;
// holds views into the parsed fields; allocates nothing.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

#include "cache/message.h"

namespace tidegate::cache {

struct CacheControl {
  bool present = false;  // at least one line of the field
  bool no_store = false;
  bool no_cache = false;    // unqualified
  bool is_private = false;  // unqualified
  bool is_public = false;
  bool must_revalidate = false;
  bool proxy_revalidate = false;
  bool must_understand = false;
  bool only_if_cached = false;
  bool any_max_stale = false;  // max-stale without a value

  // In seconds. If a directive is repeated, the first one counts. A value that is not delta-seconds counts as 0, which
  // is stale (§4.2.1).
  std::optional<uint64_t> max_age, s_maxage, min_fresh, max_stale, stale_while_revalidate, stale_if_error;

  // The lists of no-cache="a, b" and private="a, b": fields that are not stored (§5.2.2.4, §5.2.2.7). If there are more
  // lists than fit here, the directive counts as unqualified, which is always allowed for a cache.
  std::array<std::string_view, 4> withheld_lists;
  size_t withheld_count = 0;

  bool withholds(std::string_view field_name) const;
};

// Reads all Cache-Control lines together. Unknown directives are ignored; names match without case; values may be
// quoted.
CacheControl parse_cache_control(Fields fields);

// CDN-Cache-Control, a dictionary of RFC 8941. Returns nothing if it is absent, empty or malformed. Then Cache-Control
// counts (RFC 9213 §2.1).
std::optional<CacheControl> parse_targeted_cache_control(Fields fields);

// The directives of a response for this cache: CDN-Cache-Control if it is valid, else Cache-Control.
CacheControl response_control(Fields fields);

}  // namespace tidegate::cache
