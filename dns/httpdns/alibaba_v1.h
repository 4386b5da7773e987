// SPDX-License-Identifier: Apache-2.0
// HTTPDNS in the first form of Alibaba's public SDKs: GET /{account}/d and resolve, signed as sign_d and sign_resolve.
// Also the signature of /{account}/ss (service.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "core/http_server.h"
#include "dns/httpdns/context.h"
#include "dns/httpdns/errors.h"

namespace tidegate::dns {

struct HttpDnsCall {
  std::string_view account;
  bool is_signed = false;
  bool batch = false;
  bool service = false;  // ss: the client asks for server addresses, not for a name
};

// "/{account}/{interface}". Nothing for any other path. Borrows the path.
std::optional<HttpDnsCall> parse_httpdns_path(std::string_view path);

// The signature of `host` until `expiry_s` (epoch seconds, as text). `host` is decoded: for a batch it is the whole
// list, for ss the nonce.
std::string httpdns_signature(std::string_view host, std::string_view secret, std::string_view expiry_s);

HttpDnsAnswer answer_httpdns(const HttpDnsCall& call, const HttpRequest& request, const HttpDnsContext& context);

}  // namespace tidegate::dns
