// SPDX-License-Identifier: Apache-2.0
// Outcomes: every way in which a query can end, once. The enum, the counter's label and the sentence that explain gives
// all derive from this table.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tidegate::dns {

// clang-format off
#define TIDEGATE_DNS_OUTCOMES(X)                                                                             \
  X(answered,          "the zone holds records of that name and type")                                       \
  X(steered,           "a steer chose the addresses")                                                        \
  X(wildcard,          "a wildcard of the zone covers the name (RFC 4592)")                                  \
  X(alias,             "an alias was given whose end this server does not hold")                             \
  X(any,               "type ANY gets the minimal answer (RFC 8482)")                                        \
  X(nodata,            "the name exists, but not with that type")                                            \
  X(nxdomain,          "the zone holds no such name")                                                        \
  X(referral,          "the zone delegates the name to other servers")                                       \
  X(alias_loop,        "an alias leads back to where it was, or aliases were followed as far as they may be") \
  X(alias_too_long,    "the name became too long below a DNAME (RFC 6672 §2.2)")                             \
  X(only_cookie,       "no question but a cookie: a server cookie is given (RFC 7873 §5.4)")                 \
  X(stale_cookie,      "no question but a server cookie that does not hold (RFC 7873 §5.4)")                 \
  X(steer_closed,      "no target of the steer is usable and its all_down is closed")                        \
  X(bad_short,         "fewer bytes than a header: dropped")                                                 \
  X(bad_response,      "a response, not a query: dropped, or two servers could answer each other for ever")  \
  X(bad_count,         "not exactly one question, or sections that a query does not have")                   \
  X(bad_question,      "the question's name, type or class is malformed")                                    \
  X(bad_record,        "an additional record is malformed, or bytes follow the last one")                    \
  X(bad_edns,          "the OPT record is malformed or repeated (RFC 6891 §6.1.1)")                          \
  X(bad_ecs,           "the client subnet is malformed (RFC 7871 §7.1.2)")                                   \
  X(bad_cookie,        "the cookie has an impossible length (RFC 7873 §5.2.2)")                              \
  X(edns_version,      "an EDNS version that is not spoken here")                                            \
  X(opcode,            "an operation that is not served here")                                               \
  X(no_zone,           "no zone here holds the name")                                                        \
  X(klass,             "a class that is not served here")                                                    \
  X(transfer,          "zone transfer is not served")
// clang-format on

enum class Outcome : uint8_t {
#define TIDEGATE_DNS_ENUM(id, sentence) id,
  TIDEGATE_DNS_OUTCOMES(TIDEGATE_DNS_ENUM)
#undef TIDEGATE_DNS_ENUM
};

struct OutcomeInfo {
  const char* name;
  const char* sentence;
};

inline constexpr OutcomeInfo kOutcomes[] = {
#define TIDEGATE_DNS_INFO(id, sentence) {#id, sentence},
    TIDEGATE_DNS_OUTCOMES(TIDEGATE_DNS_INFO)
#undef TIDEGATE_DNS_INFO
};
#undef TIDEGATE_DNS_OUTCOMES

inline constexpr size_t kOutcomeCount = sizeof kOutcomes / sizeof kOutcomes[0];
inline const OutcomeInfo& info(Outcome outcome) { return kOutcomes[static_cast<size_t>(outcome)]; }

}  // namespace tidegate::dns
