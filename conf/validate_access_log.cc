// SPDX-License-Identifier: Apache-2.0
// The access log of a node: where it goes, and the template of its lines.
#include <fmt/format.h>

#include <algorithm>

#include "conf/checks.h"
#include "conf/log_target.h"
#include "conf/log_template.h"
#include "conf/model.h"
#include "conf/model/node.h"
#include "conf/names.h"

namespace tidegate {
namespace {

void check_log_target(Checks& checks, size_t n, const L7Node& l7) {
  const std::optional<LogTarget> target = LogTarget::parse(l7.access_log);
  if (!target) {
    return checks.refuse({"nodes", n, "l7", "access_log"},
                         {"bad_value",
                          fmt::format("{} is no place for syslog", in_quotes(l7.access_log)),
                          "syslog:/PATH or syslog:ADDRESS:PORT",
                          {}});
  }
  if (!target->is_syslog()) {
    for (const char* const key : {"access_log_facility", "access_log_tag"}) {
      if (!checks.written({"nodes", n, "l7", key})) continue;
      checks.refuse({"nodes", n, "l7", key},
                    {"without_effect", fmt::format("{} is for syslog, and access_log names none", key), {}, {}});
    }
  }
  const auto is_plain = [](char c) { return c > 0x20 && c < 0x7f; };
  const std::string& tag = l7.access_log_tag;
  if (tag.empty() || !std::all_of(tag.begin(), tag.end(), is_plain)) {
    checks.refuse({"nodes", n, "l7", "access_log_tag"}, {"bad_value",
                                                         fmt::format("{} is no name of an application", in_quotes(tag)),
                                                         "printable ASCII without blanks",
                                                         {}});
  }
}

void check_log_format(Checks& checks, size_t n, const L7Node& l7) {
  if (l7.access_log_format.empty()) return;
  LogTemplate parsed;
  LogTemplate::Trouble trouble = LogTemplate::parse(l7.access_log_format, parsed);
  if (trouble.detail.empty()) return;
  checks.refuse_within({"nodes", n, "l7", "access_log_format"}, trouble.offset,
                       {"bad_value", std::move(trouble.detail), std::move(trouble.expected), std::move(trouble.hint)});
}

}  // namespace

void check_access_logs(Checks& checks) {
  for (size_t n = 0; n < checks.model().nodes.size() && !checks.full(); ++n) {
    if (!checks.sound({"nodes", n, "l7"})) continue;
    check_log_target(checks, n, checks.model().nodes[n].l7);
    check_log_format(checks, n, checks.model().nodes[n].l7);
  }
}

}  // namespace tidegate
