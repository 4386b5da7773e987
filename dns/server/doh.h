// SPDX-License-Identifier: Apache-2.0
// DNS over HTTPS (RFC 8484), as a function from request to response. Our L7 terminates TLS.
#pragma once

#include <span>
#include <string_view>

#include "core/http_server.h"
#include "dns/query/query.h"

namespace tidegate::dns {

constexpr std::string_view kDohPath = "/dns-query";

// `scratch` has room for one answer. Errors are problem+json: 400, 405, 413, 415.
HttpResponse answer_doh(const HttpRequest& request, const Client& client, const Tables& tables, Worker& worker,
                        std::span<uint8_t> scratch);

}  // namespace tidegate::dns
