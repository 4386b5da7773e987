// SPDX-License-Identifier: Apache-2.0
// RoutePatterns: the regular expressions of one route's conditions, compiled. Versions that have the same texts share
// the compiled programs.
//
// Immutable; any thread.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "conf/model.h"
#include "core/regex.h"

namespace tidegate::l7 {

class RoutePatterns {
 public:
  // Null: the conditions have none.
  static std::shared_ptr<const RoutePatterns> of(const RouteConditions& conditions);

  // `path`: normalised, as routes are matched.
  bool takes_path(std::string_view path) const { return !path_ || path_->takes_whole(path); }
  // By the name of a field or of a parameter.
  using Pairs = std::vector<std::pair<std::string, Regex>>;
  const Pairs& headers() const { return headers_; }
  const Pairs& query() const { return query_; }

 private:
  std::optional<Regex> path_;
  Pairs headers_, query_;
};

}  // namespace tidegate::l7
