// SPDX-License-Identifier: Apache-2.0
#include "l7/route/patterns.h"

#include "conf/limits.h"
#include "core/assert.h"

namespace tidegate::l7 {
namespace {

Regex compiled(const std::string& pattern) {
  Result<Regex> regex = Regex::shared(pattern, kRegexMemoryBytes);
  TIDEGATE_ASSERT(regex, "a validated Model has patterns that compile");
  return *std::move(regex);
}

void compile_pairs(const RouteConditions::Pairs& pairs, RoutePatterns::Pairs& out) {
  for (const auto& [name, pattern] : pairs) out.emplace_back(name, compiled(pattern));
}

}  // namespace

std::shared_ptr<const RoutePatterns> RoutePatterns::of(const RouteConditions& conditions) {
  if (!conditions.has_regex()) return nullptr;
  auto patterns = std::make_shared<RoutePatterns>();
  if (!conditions.path_regex.empty()) patterns->path_ = compiled(conditions.path_regex);
  compile_pairs(conditions.headers_regex, patterns->headers_);
  compile_pairs(conditions.query_regex, patterns->query_);
  return patterns;
}

}  // namespace tidegate::l7
