// SPDX-License-Identifier: Apache-2.0
// Conditions and ranges: what a client's request makes of a stored response, what we ask the origin about it, and how
// its 304 brings it up to date. RFC 9110 §13, §14 and RFC 9111 §4.3. Pure.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>

#include "cache/cache_control.h"
#include "cache/message.h"
#include "cache/stored.h"

namespace tidegate::cache {

// What of a stored response answers the request.
struct Selection {
  uint16_t status = 0;  // the stored one, or 206, 304, 416
  ByteRange range;      // for 206: what of the body
};

// Conditions in the order of RFC 9110 §13.2.2, then Range (§14.2): one byte range becomes 206 or 416; several, other
// units, an unmet If-Range, or a body of unknown length get the whole. Only a stored 200 has conditions and ranges.
Selection select(const RequestView& request, const StoredHead& head, uint64_t now_ms);

// The one range of "bytes=..." within a body of `body_bytes`. Malformed or several: nothing (ignore it).
struct RangeRequest {
  bool satisfiable = false;
  ByteRange range;
};
std::optional<RangeRequest> parse_range(std::string_view value, uint64_t body_bytes);

// RFC 9110 §8.8.3.2
bool etags_match_weakly(std::string_view a, std::string_view b);
bool etags_match_strongly(std::string_view a, std::string_view b);

// If-None-Match and If-Modified-Since for a stored response (RFC 9111 §4.3.1); views into `head`.
struct ConditionalFields {
  std::array<http1::Field, 2> fields;
  size_t count = 0;
};
ConditionalFields conditional_fields(const StoredHead& head);

// A client's fields that ask for less than the whole response, or ask conditionally.
bool is_conditional_or_range(std::string_view field_name);

// An immutable head from a response: its end-to-end fields without those that `control` withholds from a store (RFC
// 9111 §3.1; with an empty control all of them, as the client may have them whose request fetched them), and views into
// it. The caller adds key, vary, tags, freshness and generation.
std::shared_ptr<StoredHead> make_head(const ResponseView& response, const CacheControl& control);

// RFC 9111 §4.3.4, §3.2: the stored head with all fields of a 304 laid over it; key, vary, tags and body stay.
std::shared_ptr<StoredHead> freshen_head(const StoredHead& stored, const ResponseView& not_modified);
// What of a head may be stored: itself where nothing of it is withheld, else a copy without that.
std::shared_ptr<StoredHead> storable_head(std::shared_ptr<StoredHead> whole, const CacheControl& control,
                                          uint64_t received_ms);
// Whether that 304 speaks of this stored response: its validators, where it has any, are the stored ones.
bool confirms(const StoredHead& stored, const ResponseView& not_modified);

// Computes the views and times of a head from its status, field_text and received time (after make, freshen and
// decode). False when field_text is not "name: value\r\n" lines (damaged).
bool index_head(StoredHead& head, uint64_t received_ms);

}  // namespace tidegate::cache
