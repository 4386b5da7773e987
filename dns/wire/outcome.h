// SPDX-License-Identifier: Apache-2.0
// Outcomes: every way in which a query can end, once. The enum, the counter's label and the sentence in explain all
// come from this table.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "dns/wire/wire.h"

namespace tidegate::dns {

// clang-format off
#define TIDEGATE_DNS_OUTCOMES(X) \
  X(answered,       noerror,   none,              "the zone holds records of that name and type") \
  X(steered,        noerror,   none,              "a steer chose the addresses") \
  X(wildcard,       noerror,   none,              "a wildcard of the zone covers the name (RFC 4592)") \
  X(alias,          noerror,   none,              "an alias was given whose end this server does not hold") \
  X(any,            noerror,   none,              "type ANY gets the minimal answer (RFC 8482)") \
  X(nodata,         noerror,   none,              "the name exists, but not with that type") \
  X(nxdomain,       nxdomain,  none,              "the zone holds no such name") \
  X(referral,       noerror,   none,              "the zone delegates the name to other servers") \
  X(alias_loop,     noerror,   none,              "an alias leads back to where it was, or aliases were followed as far as they may be") \
  X(alias_too_long, yxdomain,  none,              "the name became too long below a DNAME (RFC 6672 §2.2)") \
  X(only_cookie,    noerror,   none,              "no question but a cookie: a server cookie is given (RFC 7873 §5.4)") \
  X(stale_cookie,   badcookie, none,              "no question but a server cookie that does not hold (RFC 7873 §5.4)") \
  X(steer_closed,   servfail,  other,             "all targets down: closed") \
  X(bad_short,      noerror,   none,              "fewer bytes than a header: dropped") \
  X(bad_response,   noerror,   none,              "a response, not a query: dropped, or two servers could answer each other for ever") \
  X(bad_count,      formerr,   none,              "not exactly one question, or sections that a query does not have") \
  X(bad_question,   formerr,   none,              "the question's name, type or class is malformed") \
  X(bad_record,     formerr,   none,              "an additional record is malformed, or bytes follow the last one") \
  X(bad_edns,       formerr,   none,              "the OPT record is malformed or repeated (RFC 6891 §6.1.1)") \
  X(bad_ecs,        formerr,   none,              "the client subnet is malformed (RFC 7871 §7.1.2)") \
  X(bad_cookie,     formerr,   none,              "the cookie has an impossible length (RFC 7873 §5.2.2)") \
  X(edns_version,   badvers,   none,              "an EDNS version that is not spoken here") \
  X(opcode,         notimp,    none,              "an operation that is not served here") \
  X(no_zone,        refused,   not_authoritative, "no zone here holds the name") \
  X(klass,          refused,   not_supported,     "a class that is not served here") \
  X(transfer,       refused,   not_supported,     "zone transfer is not served")
// clang-format on

// RFC 8914 §4.
enum class ExtendedError : uint16_t { none = UINT16_MAX, other = 0, not_authoritative = 20, not_supported = 21 };

enum class QueryOutcome : uint8_t {
#define TIDEGATE_DNS_ENUM(id, ...) id,
  TIDEGATE_DNS_OUTCOMES(TIDEGATE_DNS_ENUM)
#undef TIDEGATE_DNS_ENUM
};

struct OutcomeInfo {
  const char* name;
  Rcode rcode;
  ExtendedError extended_error;
  const char* sentence;
};

inline constexpr OutcomeInfo kOutcomes[] = {
#define TIDEGATE_DNS_INFO(id, rcode, error, sentence) {#id, Rcode::rcode, ExtendedError::error, sentence},
    TIDEGATE_DNS_OUTCOMES(TIDEGATE_DNS_INFO)
#undef TIDEGATE_DNS_INFO
};
#undef TIDEGATE_DNS_OUTCOMES

inline constexpr size_t kOutcomeCount = sizeof kOutcomes / sizeof kOutcomes[0];
// Notes in addition to an outcome, for an extended error and for explain.
namespace note {
inline constexpr std::string_view kNetworkUnknown = "default site: network unknown";
inline constexpr std::string_view kNoTarget = "no target for this network";
inline constexpr std::string_view kShed = "a nearer site sheds load";
inline constexpr std::string_view kFailedOpen = "all targets down: open";
}  // namespace note

inline const OutcomeInfo& info(QueryOutcome outcome) { return kOutcomes[static_cast<size_t>(outcome)]; }

}  // namespace tidegate::dns
