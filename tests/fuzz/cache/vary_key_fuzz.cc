// SPDX-License-Identifier: Apache-2.0
// Keys, Vary and ranges from hostile fields. The first line is the URL; the other lines are fields of both the request
// and the response.
#include <cstdlib>
#include <string>

#include "cache/policy/key.h"
#include "cache/policy/validation.h"
#include "conf/model/route.h"
#include "tests/fuzz/cache/lines.h"

using namespace tidegate;
using namespace tidegate::cache;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t bytes) {
  const std::string_view text(reinterpret_cast<const char*>(data), bytes);
  const size_t line = std::min(text.find('\n'), bytes);
  RouteCache policy;
  if (const auto key = make_key(text.substr(0, line), policy)) {
    const auto again = make_key(*key, policy);
    if (!again || *again != *key) std::abort();  // a key must parse to itself
  }
  const auto fields = lines_of(data + line, bytes - line);
  const std::string vary = canonical_vary(fields);
  std::string values, values_again;
  RequestView request;
  request.method = "GET";
  request.fields = fields;
  vary_values(vary, request, values);
  vary_values(vary, request, values_again);
  const HashKeys keys{{1, 2}, {3, 4}};
  if (variant_hash(keys, vary, values) != variant_hash(keys, vary, values_again)) std::abort();
  if (response_tags(keys, fields).size() > kMaxTags) std::abort();
  constexpr uint64_t kBody = 1'000;
  const auto head = make_head({200, fields, 1, 1, kBody}, parse_cache_control(fields));
  const Selection selection = select(request, *head, 1'700'000'000'000);
  const ByteRange range = selection.range;
  if (selection.status == 206 && (range.length == 0 || range.first + range.length > kBody)) std::abort();
  return 0;
}
