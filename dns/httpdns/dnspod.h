// SPDX-License-Identifier: Apache-2.0
// HTTPDNS as DNSPod's public clients ask it: GET or POST /d?dn=. Names and addresses are written plain with a token
// (meant for TLS), or sealed by DES or AES with the id of an account. The answer is text, sealed as the request was.
#pragma once

#include <string_view>

#include "core/http_server.h"
#include "dns/httpdns/context.h"
#include "dns/httpdns/errors.h"

namespace tidegate::dns {

constexpr std::string_view kDnspodPath = "/d";

// The body is text: of an error its code. A name without addresses is no error, whoever it belongs to: its client asks
// elsewhere.
HttpDnsAnswer answer_dnspod(const HttpRequest& request, const HttpDnsContext& context);
HttpDnsAnswer refuse_dnspod(HttpDnsError error);

}  // namespace tidegate::dns
