// SPDX-License-Identifier: Apache-2.0
// BackendAddress: where a connection to a backend is made to.
#pragma once

#include <sys/un.h>

#include <algorithm>
#include <string>

#include "core/ip.h"

namespace tidegate::l7 {

struct BackendAddress {
  Endpoint endpoint;
  std::string socket;  // path of a unix socket; if it is set, `endpoint` has no meaning

  static constexpr size_t kMostPathBytes = sizeof(sockaddr_un::sun_path) - 1;

  bool is_unix() const { return !socket.empty(); }
  int family() const { return is_unix() ? AF_UNIX : endpoint.address.is_v4() ? AF_INET : AF_INET6; }
  // Returns the length written.
  socklen_t to_sockaddr(sockaddr_storage& storage) const {
    if (!is_unix()) return endpoint.to_sockaddr(storage);
    auto& unix_address = reinterpret_cast<sockaddr_un&>(storage);
    unix_address = {};
    unix_address.sun_family = AF_UNIX;
    std::copy_n(socket.data(), std::min(socket.size(), kMostPathBytes), unix_address.sun_path);
    return sizeof unix_address;
  }
  // The name that a certificate must have if the pool sets no name.
  std::string host() const { return is_unix() ? "localhost" : endpoint.address.to_string(); }
  std::string to_string() const { return is_unix() ? "unix:" + socket : endpoint.to_string(); }
  bool operator==(const BackendAddress&) const = default;
};

}  // namespace tidegate::l7
