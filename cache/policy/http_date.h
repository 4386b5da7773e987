// SPDX-License-Identifier: Apache-2.0
// HTTP-date (RFC 9110 §5.6.7). Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace tidegate::cache {

// Milliseconds since the epoch, from any of the three forms: IMF-fixdate, RFC 850, asctime. A two-digit year that would
// be more than 50 years after `now_ms` belongs to the century before. Nothing for other text, or a date before 1970.
std::optional<uint64_t> parse_http_date(std::string_view text, uint64_t now_ms);

}  // namespace tidegate::cache
