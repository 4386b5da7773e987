// SPDX-License-Identifier: Apache-2.0
// The lines of the access log: pure functions from a record to text. They do not allocate. A value is escaped as in
// JSON, so that it cannot end its quotes or its line. It is also cut at a bound, so a line always fits into
// kLongestLogLine.
#pragma once

#include <cstddef>
#include <string_view>

#include "conf/log_template.h"
#include "l7/observe/access_log.h"

namespace tidegate::l7 {

// The header of a syslog message (RFC 5424 §6): `begin`, the time of the record, `middle`. Both are empty without
// syslog.
struct LogLineHeader {
  std::string_view begin, middle;
};

// Each writes one line with its newline into `out`, of kLongestLogLine bytes, and returns its length.
size_t write_json_line(const AccessRecord& record, const LogLineHeader& header, char* out);
size_t write_template_line(const AccessRecord& record, const LogTemplate& format, const LogLineHeader& header,
                           char* out);

}  // namespace tidegate::l7
