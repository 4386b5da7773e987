// SPDX-License-Identifier: Apache-2.0
// Where the access log goes: the meaning of `access_log`.
//
//   /var/log/tidegate/access.log   a file
//   -                              standard output
//   syslog:/dev/log                syslog, a datagram socket of this host
//   syslog:192.0.2.5:514           syslog over UDP
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/ip.h"

namespace tidegate {

struct LogTarget {
  enum class Kind : uint8_t { none, file, standard_output, syslog_socket, syslog_udp };
  Kind kind = Kind::none;
  std::string path;    // of a file or a unix socket
  Endpoint collector;  // of syslog over UDP

  bool is_syslog() const { return kind == Kind::syslog_socket || kind == Kind::syslog_udp; }
  // Returns nothing if the text after "syslog:" is neither an absolute path of at most 107 bytes nor an address with a
  // port.
  static std::optional<LogTarget> parse(std::string_view text);
};

// The words for facilities (RFC 5424 §6.2.1). The index is the facility's number.
const std::vector<std::string_view>& syslog_facility_words();

}  // namespace tidegate
