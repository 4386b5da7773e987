// SPDX-License-Identifier: Apache-2.0
#include "conf/policy/deadline.h"

#include <fmt/format.h>

#include "conf/field_builders.h"
#include "conf/model.h"
#include "conf/names.h"
#include "conf/policy/kind.h"
#include "core/http1.h"

namespace tidegate {
namespace {

using namespace fields;

const Section& deadline_section() {
  static const Section section{
      "deadline",
      {
          required(text("header", &DeadlinePolicy::header,
                        "The field of the request that has the time, a whole number. The backend gets what is left of "
                        "it at that moment.",
                        128)),
          choice("unit", &DeadlinePolicy::unit, {{"ms", DeadlineUnit::ms}, {"s", DeadlineUnit::s}}, "Of the number."),
          duration("default", &DeadlinePolicy::default_ms, {0, 1 * kDay},
                   "The time of a request that does not say it. 0: it has none."),
          duration("most", &DeadlinePolicy::most_ms, {0, 1 * kDay}, "A longer time counts as this. 0: any."),
      }};
  return section;
}

// Fields that the proxy writes or that frame the message cannot have a second meaning.
bool is_taken(std::string_view header) {
  for (const char* taken : {"Host", "Connection", "Content-Length", "Transfer-Encoding", "Upgrade", "Expect", "TE",
                            "Trailer", "Via", "X-Request-Id", "X-Forwarded-For", "X-Forwarded-Proto",
                            "X-Forwarded-Host", "grpc-timeout", "Cookie", "Authorization"}) {
    if (http1::equals_ignore_case(header, taken)) return true;
  }
  return false;
}

void check_deadline(Checks& checks, size_t p) {
  const DeadlinePolicy& deadline = *checks.model().policies[p].part<DeadlinePolicy>("deadline");
  if (!http1::is_token(deadline.header) || is_taken(deadline.header)) {
    checks.refuse(
        {"policies", p, "deadline", "header"},
        {"bad_value", fmt::format("{} cannot be the field of a deadline", in_quotes(deadline.header)),
         "the name of a field that the proxy does not use itself, as X-Request-Timeout",
         http1::equals_ignore_case(deadline.header, "grpc-timeout") ? "grpc-timeout holds without a policy" : ""});
  }
  if (deadline.most_ms != 0 && deadline.default_ms > deadline.most_ms) {
    checks.refuse({"policies", p, "deadline", "default"},
                  {"out_of_range",
                   fmt::format("default is {} ms", deadline.default_ms),
                   fmt::format("at most {} ms, as `most` says", deadline.most_ms),
                   {}});
  }
}

}  // namespace

PolicyKind deadline_policy_kind() {
  return policy_kind<DeadlinePolicy>("deadline", "How long a request may take, as its client says.", deadline_section(),
                                     check_deadline);
}

}  // namespace tidegate
