// SPDX-License-Identifier: Apache-2.0
// RoutePatterns: the compiled regular expressions of one route's conditions. Versions with the same texts share the
// compiled programs.
//
// Immutable; any thread.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "conf/model/route.h"
#include "core/regex.h"
#include "core/result.h"

namespace tidegate::l7 {

class RoutePatterns {
 public:
  // Null if the conditions have none.
  static Result<std::shared_ptr<const RoutePatterns>> of(const RouteConditions& conditions);

  // `path`: normalised, in the form in which routes are matched.
  bool takes_path(std::string_view path) const { return !path_ || path_->takes_whole(path); }
  // Regular expressions, each with the name of its field or parameter.
  using Pairs = std::vector<std::pair<std::string, Regex>>;
  const Pairs& headers() const { return headers_; }
  const Pairs& query() const { return query_; }

 private:
  std::optional<Regex> path_;
  Pairs headers_, query_;
};

}  // namespace tidegate::l7
