// SPDX-License-Identifier: Apache-2.0
// The messages of an authority (RFC 8555 §7.1), read from JSON. Every function accepts any bytes, because an authority
// is a foreign server. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/result.h"

namespace tidegate::acme {

// URLs of the authority's resources, all with https.
struct Directory {
  std::string new_nonce, new_account, new_order;
  std::string renewal_info;  // RFC 9773; empty: not offered
  bool external_account_required = false;
};
Result<Directory> parse_directory(std::string_view body);

enum class OrderStatus : uint8_t { pending, ready, processing, valid, invalid };
struct Order {
  OrderStatus status = OrderStatus::pending;
  std::vector<std::string> authorizations;  // URLs, at most kMaxOrderedNames
  std::string finalize;                     // URL
  std::string certificate;                  // URL; set when the order is valid
  std::string error;                        // why it is invalid, as a sentence
};
Result<Order> parse_order(std::string_view body);

struct Challenge {
  std::string type, url, token;
  bool invalid = false;
  std::string error;
};
enum class AuthorizationStatus : uint8_t { pending, valid, invalid };  // invalid: also expired, revoked, deactivated
struct Authorization {
  AuthorizationStatus status = AuthorizationStatus::pending;
  std::string name;  // without "*."
  bool wildcard = false;
  std::vector<Challenge> challenges;  // of the types that have a token
};
Result<Authorization> parse_authorization(std::string_view body);

// A problem document (RFC 7807) with the types of RFC 8555 §6.7.
struct Problem {
  std::string type;    // without "urn:ietf:params:acme:error:"; empty: another type, or none
  std::string detail;  // printable; the received text, at most kMaxProblemBytes of it
};
// The sentence contains `status` if the body is not a problem document.
Problem parse_problem(int status, std::string_view body);
std::string sentence(const Problem& problem);

// Retry-After (RFC 9110 §10.2.3): seconds, or a date. Nothing if it is neither.
std::optional<uint64_t> parse_retry_after_s(std::string_view value, int64_t now_s);

// RFC 9773 §4.2.
struct RenewalInfo {
  int64_t start_s = 0, end_s = 0;  // epoch
};
Result<RenewalInfo> parse_renewal_info(std::string_view body);

}  // namespace tidegate::acme
