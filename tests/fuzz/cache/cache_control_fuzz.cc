// SPDX-License-Identifier: Apache-2.0
// Cache-Control, CDN-Cache-Control, dates and the decisions made from them. Whatever a backend sends, they must be
// consistent.
#include <cstdlib>

#include "cache/policy/policy.h"
#include "conf/model/route.h"
#include "tests/fuzz/cache/lines.h"

using namespace tidegate;
using namespace tidegate::cache;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t bytes) {
  constexpr uint64_t kNow = 1'700'000'000'000;
  const auto fields = lines_of(data, bytes);
  RouteCache policy;
  policy.enabled = true;
  RequestView request;
  request.method = "GET";
  const StoreDecision decision = decide_store(request, {200, fields, kNow, kNow, {}}, policy);
  if (decision.refusal != Refusal::none) return 0;
  if (parse_cache_control(fields).no_store && !parse_targeted_cache_control(fields)) {
    if (!parse_cache_control(fields).must_understand) std::abort();
  }
  if (decision.freshness.lifetime_ms > policy.max_ttl_ms) std::abort();
  const UseDecision use = decide_use(decision.freshness, request_control(fields), false, kNow);
  if (use.use == Use::fresh && ttl_ms(decision.freshness, kNow) <= 0) std::abort();
  if (use.use != Use::validate && decision.freshness.no_cache) std::abort();
  return 0;
}
