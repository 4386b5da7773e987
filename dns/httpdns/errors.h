// SPDX-License-Identifier: Apache-2.0
// The refusals of HTTPDNS: code, HTTP status and counter of each, for every form.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace tidegate::dns {

// Every refusal: the code that the SDKs know and its status. One table: enum, body and counter derive from it.
// clang-format off
#define TIDEGATE_HTTPDNS_ERRORS(X)                     \
  X(none,                         200, "")             \
  X(missing_argument,             400, "MissingArgument")           \
  X(invalid_host,                 400, "InvalidHost")               \
  X(too_many_hosts,               400, "TooManyHosts")              \
  X(invalid_mode,                 400, "InvalidMode")               \
  X(invalid_client_ip,            400, "InvalidClientIp")           \
  X(decryption_failed,            400, "DecryptionFailed")          \
  X(invalid_account,              403, "InvalidAccount")            \
  X(account_not_exists,           403, "AccountNotExists")          \
  X(unsigned_interface_disabled,  403, "UnsignedInterfaceDisabled") \
  X(invalid_duration,             403, "InvalidDuration")           \
  X(signature_expired,            403, "SignatureExpired")          \
  X(invalid_signature,            403, "InvalidSignature")          \
  X(invalid_token,                403, "InvalidToken")              \
  X(service_not_configured,       404, "ServiceNotConfigured")      \
  X(method_not_allowed,           405, "MethodNotAllowed")          \
  X(too_many_requests,            429, "TooManyRequests")           \
  X(quota_exceeded,               429, "QuotaExceeded")             \
  X(internal_error,               500, "InternalError")             \
  X(not_implemented,              501, "NotImplemented")
// clang-format on

enum class HttpDnsError : uint8_t {
#define TIDEGATE_HTTPDNS_ENUM(id, status, code) id,
  TIDEGATE_HTTPDNS_ERRORS(TIDEGATE_HTTPDNS_ENUM)
#undef TIDEGATE_HTTPDNS_ENUM
};

struct HttpDnsErrorInfo {
  int status;
  const char* code;
};

inline constexpr HttpDnsErrorInfo kHttpDnsErrors[] = {
#define TIDEGATE_HTTPDNS_INFO(id, status, code) {status, code},
    TIDEGATE_HTTPDNS_ERRORS(TIDEGATE_HTTPDNS_INFO)
#undef TIDEGATE_HTTPDNS_INFO
};
#undef TIDEGATE_HTTPDNS_ERRORS

inline constexpr size_t kHttpDnsErrorCount = sizeof kHttpDnsErrors / sizeof kHttpDnsErrors[0];
inline const HttpDnsErrorInfo& info(HttpDnsError error) { return kHttpDnsErrors[static_cast<size_t>(error)]; }

struct HttpDnsAnswer {
  HttpDnsError error = HttpDnsError::none;
  std::string body;  // in the form of the request, also for an error
};
// The error as JSON.
HttpDnsAnswer refuse_httpdns(HttpDnsError error);

}  // namespace tidegate::dns
