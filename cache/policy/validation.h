// SPDX-License-Identifier: Apache-2.0
// Conditions and ranges: how a client's request selects a part of a stored response, how a stored response is validated
// at the origin, and how a 304 updates it. RFC 9110 §13, §14 and RFC 9111 §4.3. Pure.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>

#include "cache/message.h"
#include "cache/policy/cache_control.h"
#include "cache/stored.h"

namespace tidegate::cache {

// The answer to the request: a status and a part of the body.
struct Selection {
  uint16_t status = 0;  // the stored status, or 206, 304, 412, 416
  ByteRange range;      // for 206: the part of the body
};

// Evaluates conditions in the order of RFC 9110 §13.2.2, then Range (§14.2). One byte range becomes 206 or 416. The
// whole is sent for several ranges, other units, an If-Range that does not hold, and a body of unknown length.
// Conditions and ranges apply to a stored 200 only.
Selection select(const RequestView& request, const StoredHead& head, uint64_t now_ms);

// Whether If-Match, or else If-Unmodified-Since, holds for a stored response (RFC 9110 §13.1.1, §13.1.4). True if the
// request has neither.
bool precondition_holds(const RequestView& request, const StoredHead& head, uint64_t now_ms);

// The one range of "bytes=..." within a body of `body_bytes`. Nothing if it is malformed or has several ranges; then
// ignore the field.
struct RangeRequest {
  bool satisfiable = false;
  ByteRange range;
};
std::optional<RangeRequest> parse_range(std::string_view value, uint64_t body_bytes);

// RFC 9110 §8.8.3.2
bool etags_match_weakly(std::string_view a, std::string_view b);
bool etags_match_strongly(std::string_view a, std::string_view b);

// If-None-Match and If-Modified-Since for a stored response (RFC 9111 §4.3.1). Views into `head`.
struct ConditionalFields {
  std::array<http1::Field, 2> fields;
  size_t count = 0;
};
ConditionalFields conditional_fields(const StoredHead& head);

// Whether a field of the client asks for a part of the response, or makes the request conditional.
bool is_conditional_or_range(std::string_view field_name);

// Makes an immutable head from a response: its end-to-end fields without those that `control` withholds from the store
// (RFC 9111 §3.1). With an empty `control` all fields stay, for the client whose request fetched them. The caller adds
// key, vary, tags, freshness and generation.
std::shared_ptr<StoredHead> make_head(const ResponseView& response, const CacheControl& control);

// The stored head with the fields of a 304 laid over it (RFC 9111 §4.3.4, §3.2). Key, vary, tags and body stay.
std::shared_ptr<StoredHead> freshen_head(const StoredHead& stored, const ResponseView& not_modified);
// The part of a head that may be stored: the head itself, or a copy without the withheld fields.
std::shared_ptr<StoredHead> storable_head(std::shared_ptr<StoredHead> whole, const CacheControl& control,
                                          uint64_t received_ms);
// True if a 304 confirms this stored response: the validators in the 304 are those of the stored response.
bool confirms(const StoredHead& stored, const ResponseView& not_modified);

// Walks the spelt names of a head together with its fields.
class SpeltNames {
 public:
  explicit SpeltNames(const StoredHead& head) : rest_(head.spelt_names) {}
  // Call it for each field, in order. Returns an empty name if only the lower-case name is known.
  std::string_view next(const http1::Field& field) {
    const std::string_view name = rest_.substr(0, field.name.size());
    rest_.remove_prefix(name.size());
    return name;
  }

 private:
  std::string_view rest_;
};

// Computes the views and times of a head from its status, field_text and received time. Call it after a change of
// field_text. Returns false if field_text is damaged: it is not made of "name: value\r\n" lines.
bool index_head(StoredHead& head, uint64_t received_ms);

}  // namespace tidegate::cache
