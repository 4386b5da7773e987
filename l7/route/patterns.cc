// SPDX-License-Identifier: Apache-2.0
#include "l7/route/patterns.h"

#include "conf/limits.h"

namespace tidegate::l7 {
namespace {

Result<void> compile_pairs(const RouteConditions::Pairs& pairs, RoutePatterns::Pairs& out) {
  for (const auto& [name, pattern] : pairs) {
    Result<Regex> regex = Regex::shared(pattern, kRegexMemoryBytes);
    if (!regex) return regex.error();
    out.emplace_back(name, *std::move(regex));
  }
  return {};
}

}  // namespace

Result<std::shared_ptr<const RoutePatterns>> RoutePatterns::of(const RouteConditions& conditions) {
  if (!conditions.has_regex()) return std::shared_ptr<const RoutePatterns>();
  auto patterns = std::make_shared<RoutePatterns>();
  if (!conditions.path_regex.empty()) {
    Result<Regex> regex = Regex::shared(conditions.path_regex, kRegexMemoryBytes);
    if (!regex) return regex.error();
    patterns->path_ = *std::move(regex);
  }
  Result<void> compiled = compile_pairs(conditions.headers_regex, patterns->headers_);
  if (compiled) compiled = compile_pairs(conditions.query_regex, patterns->query_);
  if (!compiled) return compiled.error();
  return std::shared_ptr<const RoutePatterns>(std::move(patterns));
}

}  // namespace tidegate::l7
