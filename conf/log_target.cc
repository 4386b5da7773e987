// SPDX-License-Identifier: Apache-2.0
#include "conf/log_target.h"

#include <sys/un.h>

namespace tidegate {

std::optional<LogTarget> LogTarget::parse(std::string_view text) {
  constexpr std::string_view kSyslog = "syslog:";
  LogTarget target;
  if (text.empty()) return target;
  if (text == "-") {
    target.kind = Kind::standard_output;
    return target;
  }
  if (!text.starts_with(kSyslog)) {
    target.kind = Kind::file;
    target.path = text;
    return target;
  }
  text.remove_prefix(kSyslog.size());
  if (text.starts_with('/')) {
    if (text.size() >= sizeof(sockaddr_un::sun_path)) return std::nullopt;
    target.kind = Kind::syslog_socket;
    target.path = text;
    return target;
  }
  const std::optional<Endpoint> collector = Endpoint::parse(text);
  if (!collector || collector->port == 0) return std::nullopt;
  target.kind = Kind::syslog_udp;
  target.collector = *collector;
  return target;
}

const std::vector<std::string_view>& syslog_facility_words() {
  static const std::vector<std::string_view> words{"kern",   "user",     "mail",    "daemon", "auth",     "syslog",
                                                   "lpr",    "news",     "uucp",    "cron",   "authpriv", "ftp",
                                                   "ntp",    "security", "console", "clock",  "local0",   "local1",
                                                   "local2", "local3",   "local4",  "local5", "local6",   "local7"};
  return words;
}

}  // namespace tidegate
