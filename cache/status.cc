// SPDX-License-Identifier: Apache-2.0
#include "cache/status.h"

#include "core/assert.h"

#include <fmt/format.h>

#include <iterator>

namespace tidegate::cache {

const char* token(Forward forward) {
  constexpr const char* kTokens[] = {"none", "bypass", "method", "uri-miss", "vary-miss", "miss", "request", "stale"};
  static_assert(std::size(kTokens) == static_cast<size_t>(Forward::count_));
  TIDEGATE_ASSERT(forward < Forward::count_, "a reason has a token");
  return kTokens[static_cast<size_t>(forward)];
}

void append_cache_status(std::string& out, std::string_view cache_name, const CacheStatus& status) {
  out.append(cache_name);
  if (status.hit) out.append("; hit");
  if (!status.hit && status.forward != Forward::none) out.append("; fwd=").append(token(status.forward));
  const auto append_number = [&out](std::string_view before, auto number) {
    const fmt::format_int digits(number);
    out.append(before).append(digits.data(), digits.size());
  };
  if (status.forward_status != 0) append_number("; fwd-status=", status.forward_status);
  if (status.ttl_s) append_number("; ttl=", *status.ttl_s);
  if (status.stored) out.append("; stored");
  if (status.collapsed) out.append("; collapsed");
  if (status.detail != nullptr && *status.detail != '\0') out.append("; detail=").append(status.detail);
}

}  // namespace tidegate::cache
