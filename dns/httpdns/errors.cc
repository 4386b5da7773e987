// SPDX-License-Identifier: Apache-2.0
#include "dns/httpdns/errors.h"

#include <fmt/format.h>

namespace tidegate::dns {

HttpDnsAnswer refuse_httpdns(HttpDnsError error) {
  return {error, fmt::format("{{\"code\":\"{}\"}}", info(error).code)};
}

}  // namespace tidegate::dns
