// SPDX-License-Identifier: Apache-2.0
// The PROXY protocol, versions 1 and 2 (haproxy.org, proxy-protocol.txt): the first bytes of a connection, which name
// the original client. Pure.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "conf/model/pool_parts.h"
#include "core/ip.h"

namespace tidegate::l7 {

struct ProxyAddresses {
  Endpoint source, destination;  // both of one family
};

struct ProxyHeader {
  enum class Status : uint8_t {
    incomplete,  // more bytes are needed
    bad,         // it is not a PROXY header
    ok,
  };
  Status status = Status::incomplete;
  size_t bytes = 0;  // its length, if ok
  // The addresses in the header. Nothing if the connection is the sender's own (LOCAL, UNKNOWN, or a family that is not
  // IP).
  std::optional<ProxyAddresses> addresses;
};

// Reads the header at the beginning of `bytes`. A header of more than kProxyHeaderBytes is bad. TLVs of version 2 are
// skipped; a CRC32c among them is not checked.
ProxyHeader parse_proxy_header(std::string_view bytes);

// The header for a connection. Without addresses, or with two families in version 1, it says that the connection is our
// own.
std::string write_proxy_header(ProxyProtocol version, const std::optional<ProxyAddresses>& addresses);

}  // namespace tidegate::l7
