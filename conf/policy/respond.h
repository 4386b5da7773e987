// SPDX-License-Identifier: Apache-2.0
// The keys of respond: answers and fields of the proxy itself. These are security fields, CORS, error pages,
// maintenance and mock answers.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "conf/model/policy.h"
#include "core/ip.h"

namespace tidegate {

struct SecurityFields {
  bool enabled = false;
  uint64_t hsts_s = 0;  // 0: the field is not sent
  bool hsts_subdomains = false;
  bool hsts_preload = false;
  std::string content_security_policy;
  std::string permissions_policy;
  std::string referrer_policy;
  std::string frame_options;  // "", "DENY" or "SAMEORIGIN"
  bool nosniff = true;
};

struct CorsRules {
  bool enabled = false;
  std::vector<std::string> origins;
  std::vector<std::string> methods;
  std::vector<std::string> headers;  // of requests
  std::vector<std::string> expose;   // of answers
  bool credentials = false;
  uint64_t max_age_s = 600;
};

struct ErrorPage {
  std::vector<uint16_t> statuses;
  std::string body;
  std::string content_type = "text/html; charset=utf-8";
};

struct Maintenance {
  bool enabled = false;
  uint64_t retry_after_s = 300;
  std::string body;
  std::string content_type = "text/html; charset=utf-8";
  std::vector<Cidr> except;  // clients that are served during maintenance
};

struct MockAnswer {
  bool enabled = false;
  uint16_t status = 200;
  std::string body;
  std::string content_type = "application/json";
  std::vector<std::pair<std::string, std::string>> headers;
};

struct RespondPolicy final : PolicyPart {
  SecurityFields security;
  CorsRules cors;
  std::vector<ErrorPage> error_pages;
  Maintenance maintenance;
  MockAnswer mock;
};

// One word of CorsRules::origins, in lower case.
struct OriginPattern {
  enum class Kind : uint8_t { any, exact, subdomains };
  Kind kind = Kind::exact;
  std::string scheme;  // of subdomains: "https://"
  std::string rest;    // exact: the whole origin; subdomains: ".example.com", with the port if it has one
  bool matches(std::string_view origin) const;
};
// Returns nothing for any other text.
std::optional<OriginPattern> parse_origin_pattern(std::string_view word);

}  // namespace tidegate
