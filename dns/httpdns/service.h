// SPDX-License-Identifier: Apache-2.0
// Where clients find HTTPDNS: the answer of /{account}/ss, which the clients of both of Alibaba's forms ask first.
#pragma once

#include <string_view>

#include "core/ip.h"
#include "dns/httpdns/errors.h"
#include "dns/query/tables.h"

namespace tidegate::dns {

// The addresses of httpdns.service that are up, those of the site named `region` first, then by nearness to the client.
// If none is up, those that no operator took out; if none is left, all: a client without any server would ask nobody.
HttpDnsAnswer answer_service(std::string_view region, const IpAddress& client, const Tables& tables);

}  // namespace tidegate::dns
