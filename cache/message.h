// SPDX-License-Identifier: Apache-2.0
// Requests and responses as the cache sees them: views of a parsed message, the same for every HTTP version.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "core/http1.h"

namespace tidegate::cache {

using Fields = std::span<const http1::Field>;

// Borrowed for the call. Names are in any case; fields are in the order received.
struct RequestView {
  std::string_view method;
  std::string_view scheme;  // "http" or "https"
  std::string_view host;    // authority as received; compared without case, default port dropped
  std::string_view path;    // origin form, as received, never decoded: '/' differs from '%2F'
  std::string_view query;   // what follows '?'
  Fields fields;
  // The variant of a split that was chosen for the request, as a text without line ends. Answers of different branches
  // are variants of one key. Empty: nothing.
  std::string_view branch;
};

// A backend's answer. Times are realtime milliseconds, for RFC 9111 §4.2.3.
struct ResponseView {
  uint16_t status = 0;
  Fields fields;
  uint64_t request_ms = 0;                 // when the request was sent
  uint64_t response_ms = 0;                // when the head arrived
  std::optional<uint64_t> content_length;  // not set if the framing does not say it
  std::string_view reason;                 // the phrase of HTTP/1; empty: the registered one
};

}  // namespace tidegate::cache
