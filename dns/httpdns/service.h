// SPDX-License-Identifier: Apache-2.0
// The addresses at which clients find HTTPDNS: the answer of /{account}/ss. The clients of both of Alibaba's forms ask
// it first.
#pragma once

#include <string_view>

#include "core/ip.h"
#include "dns/httpdns/errors.h"
#include "dns/query/tables.h"

namespace tidegate::dns {

// The addresses of httpdns.service that are up. Those of the site named `region` come first, then the order is by
// nearness to the client. If no address is up, returns the addresses that no operator took out of service. If none is
// left, returns all, because a client without a server could not ask at all.
HttpDnsAnswer answer_service(std::string_view region, const IpAddress& client, const Tables& tables);

}  // namespace tidegate::dns
