// SPDX-License-Identifier: Apache-2.0
// HTTPDNS in the form of DNSPod's public clients: GET or POST /d?dn=. Names and addresses are plain text with a token
// (meant for TLS), or sealed by DES or AES with the id of an account. The answer is text, sealed like the request.
#pragma once

#include <string_view>

#include "core/http_server.h"
#include "dns/httpdns/context.h"
#include "dns/httpdns/errors.h"

namespace tidegate::dns {

constexpr std::string_view kDnspodPath = "/d";

// The body is text. For an error it is the error's code. A name without addresses is not an error, even if the name is
// not ours: the client then asks another server.
HttpDnsAnswer answer_dnspod(const HttpRequest& request, const HttpDnsContext& context);
HttpDnsAnswer refuse_dnspod(HttpDnsError error);

}  // namespace tidegate::dns
