// SPDX-License-Identifier: Apache-2.0
// HTTPDNS in the second form of Alibaba's public SDKs: GET /v2/d. Its parameters may be signed (HMAC-SHA256) and sealed
// (AES-128). The answer is sealed like the request.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "core/http_server.h"
#include "dns/httpdns/context.h"
#include "dns/httpdns/errors.h"

namespace tidegate::dns {

constexpr std::string_view kHttpDnsV2Path = "/v2/d";

// The signature of a request's query. It covers the parameters id, m, dn, cip, q, enc, exp, tags, v and sdns-*, as far
// as they are not empty: decoded, sorted, as "k=v&k=v". A secret of hexadecimal digits stands for the bytes that they
// encode.
std::string httpdns_v2_signature(std::string_view query, std::string_view secret);

HttpDnsAnswer answer_httpdns_v2(const HttpRequest& request, const HttpDnsContext& context);

}  // namespace tidegate::dns
