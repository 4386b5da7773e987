// SPDX-License-Identifier: Apache-2.0
// Preflights of CORS (Fetch standard §3.2.2): before a browser sends a request for a page of another site, it asks
// whether the request would be allowed. It asks with OPTIONS, and without credentials.
#pragma once

#include <string_view>

#include "l7/wire/message.h"

namespace tidegate::l7::policy {

constexpr std::string_view kOrigin = "origin", kRequestMethod = "access-control-request-method",
                           kRequestHeaders = "access-control-request-headers";

inline bool is_preflight(const RequestHead& request) {
  return request.method == "OPTIONS" && request.fields.find(kRequestMethod) != nullptr &&
         request.fields.find(kOrigin) != nullptr;
}

}  // namespace tidegate::l7::policy
