#include "cache/status.h"

#include <fmt/format.h>

#include <iterator>

namespace tidegate::cache {

const char* token(Forward forward) {
  constexpr const char* kTokens[] = {"none", "bypass", "method", "uri-miss", "vary-miss", "miss", "request", "stale"};
  static_assert(std::size(kTokens) == static_cast<size_t>(Forward::count_));
  return kTokens[static_cast<size_t>(forward)];
}

void append_cache_status(std::string& out, std::string_view cache_name, const CacheStatus& status) {
  out.append(cache_name);
  if (status.hit) out.append("; hit");
  if (!status.hit && status.forward != Forward::none) out.append("; fwd=").append(token(status.forward));
  auto end = std::back_inserter(out);
  if (status.forward_status != 0) fmt::format_to(end, "; fwd-status={}", status.forward_status);
  if (status.ttl_s) fmt::format_to(end, "; ttl={}", *status.ttl_s);
  if (status.stored) out.append("; stored");
  if (status.collapsed) out.append("; collapsed");
  if (status.detail != nullptr && *status.detail != '\0') out.append("; detail=").append(status.detail);
}

}  // namespace tidegate::cache
