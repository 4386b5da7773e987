// SPDX-License-Identifier: Apache-2.0
// A stored response: an immutable head that many answers share, and a body that is in memory, on disk, or both.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "cache/body.h"
#include "cache/message.h"

namespace tidegate::cache {

// The times of a stored response. Freshness is computed from these alone (RFC 9111 §4.2). The index keeps a copy in
// each entry. So it can decide without the head.
struct Freshness {
  uint64_t born_ms = 0;                    // response time minus corrected initial age; age = now - born
  uint64_t lifetime_ms = 0;                // §4.2.1
  uint64_t stale_while_revalidate_ms = 0;  // RFC 5861 §3
  uint64_t stale_if_error_ms = 0;          // RFC 5861 §4
  bool must_revalidate = false;  // never served stale: must-revalidate, proxy-revalidate, s-maxage (§5.2.2.2, .8, .10)
  bool no_cache = false;         // never served without validation (§5.2.2.4)
};

// Immutable once made. `fields` and the views point into `field_text`.
struct StoredHead {
  uint16_t status = 0;
  // End-to-end fields, each as "name: value\r\n", with names in lower case. Left out are hop-by-hop fields, and fields
  // that are made for each answer: Content-Length, Content-Range, Age, Transfer-Encoding.
  std::string field_text;
  std::vector<http1::Field> fields;
  // The names of the fields in the same order, as the backend spelt them, without separators. Empty: all names are in
  // lower case.
  std::string spelt_names;
  std::string reason;  // the phrase of HTTP/1; empty: the registered phrase
  Freshness freshness;
  uint64_t body_bytes = 0;         // UINT64_MAX: arriving, and the length is not known
  std::string_view etag;           // with quotes and W/; empty: none
  std::string_view last_modified;  // as received; empty: none
  uint64_t date_ms = 0;            // from Date, or the time when it was received
  uint64_t last_modified_ms = 0;   // 0: none or unreadable
  std::string key;                 // the full key, compared on each hit
  std::string vary;                // the names in Vary: lower case, sorted, joined by ','; empty: none
  std::string vary_values;         // the storing request's normalised values (vary_values)
  std::vector<uint64_t> tags;      // keyed hashes of Surrogate-Key / Cache-Tag words
  uint64_t generation = 0;         // every fetch gets the next number; purges compare it

  size_t text_bytes() const { return field_text.size() + spelt_names.size() + reason.size(); }
};

}  // namespace tidegate::cache
