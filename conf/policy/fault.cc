// SPDX-License-Identifier: Apache-2.0
#include "conf/policy/fault.h"

#include <fmt/format.h>

#include "conf/field_builders.h"
#include "conf/model.h"
#include "conf/names.h"
#include "conf/policy/kind.h"
#include "core/http1.h"

namespace tidegate {
namespace {

using namespace fields;

const Section& fault_section() {
  static const Section section{
      "fault",
      {
          duration("delay", &FaultPolicy::delay_ms, {0, 1 * kMinute},
                   "A request waits for so long before it goes on. Without it, none waits."),
          number("delay_percent", &FaultPolicy::delay_percent, 0, 100, "How many of the requests."),
          integer("abort", &FaultPolicy::abort_status, {0, 599},
                  "A request is answered with this status, 400 to 599, instead of by a backend. Without it, none is."),
          number("abort_percent", &FaultPolicy::abort_percent, 0, 100, "How many of the requests."),
          text(
              "header", &FaultPolicy::header,
              "Only requests with this field. Without it, all. A client chooses its fields: bind the policy where that "
              "is meant.",
              128),
      }};
  return section;
}

void check_fault(Checks& checks, size_t p) {
  const FaultPolicy& fault = *checks.model().policies[p].part<FaultPolicy>("fault");
  if (fault.delay_ms == 0 && fault.abort_status == 0) {
    checks.refuse({"policies", p, "fault"}, {"missing_key", "a fault that does nothing", "delay or abort", {}});
  }
  if (fault.abort_status != 0 && fault.abort_status < 400) {
    checks.refuse({"policies", p, "fault", "abort"},
                  {"out_of_range", fmt::format("abort is {}", fault.abort_status), "400 to 599", {}});
  }
  const std::pair<const char*, bool> kShares[] = {{"delay_percent", fault.delay_ms != 0},
                                                  {"abort_percent", fault.abort_status != 0}};
  for (const auto& [key, has_effect] : kShares) {
    if (has_effect || !checks.written({"policies", p, "fault", key})) continue;
    checks.refuse({"policies", p, "fault", key},
                  {"without_effect", fmt::format("{} without what it is a share of", key), {}, "remove it"});
  }
  if (!fault.header.empty() && !http1::is_token(fault.header)) {
    checks.refuse({"policies", p, "fault", "header"},
                  {"bad_value", fmt::format("{} is no name of a field", in_quotes(fault.header)), {}, {}});
  }
}

}  // namespace

PolicyKind fault_policy_kind() {
  return policy_kind<FaultPolicy>("fault", "Delays and aborts on purpose, to test what clients make of them.",
                                  fault_section(), check_fault);
}

}  // namespace tidegate
