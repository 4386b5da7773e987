// SPDX-License-Identifier: Apache-2.0
// Whether a request meets the conditions of a route (RouteConditions): fields, query, cookies and the client's network.
// If a parameter or a cookie occurs several times, only the first one counts. If a field occurs several times, all its
// values count, as one list. So two routes that ask for different values of one name never both match a request.
#pragma once

#include <string_view>

#include "conf/model/route.h"
#include "l7/route/router.h"
#include "l7/wire/message.h"

namespace tidegate::l7 {

// Borrows the request and the text of the client's address. Only regular expressions (core/regex.h) and fields that
// occur several times may allocate.
class RequestConditions final : public ConditionJudge {
 public:
  RequestConditions(const RequestHead& request, std::string_view client) : request_(request), client_(client) {}
  bool meets(const RouteConditions& conditions, const RoutePatterns* patterns) const override;

 private:
  bool meets_patterns(const RoutePatterns& patterns) const;

  const RequestHead& request_;
  const std::string_view client_;  // may be empty: then it is in no network
};

// Whether the first parameter of that name has that value ("*": any), both percent-decoded, '+' as a space.
bool query_has(std::string_view query, std::string_view name, std::string_view value);

}  // namespace tidegate::l7
