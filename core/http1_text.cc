// SPDX-License-Identifier: Apache-2.0
// The texts of HTTP: tokens, reason phrases, faults, query strings.
#include "core/ascii_words.h"
#include "core/http1.h"
#include "core/http1_chars.h"
#include "core/percent.h"

namespace tidegate::http1 {
namespace {

constexpr FaultInfo kFaults[] = {
#define FAULT(name, status, sentence) {#name, status, sentence},
#include "core/http1_faults.def"
#undef FAULT
};
static_assert(std::size(kFaults) == static_cast<size_t>(Fault::count_));

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c | 0x20) : c; }

}  // namespace

const FaultInfo& fault_info(Fault fault) { return kFaults[static_cast<size_t>(fault)]; }

bool is_token(std::string_view text) {
  return !text.empty() && skip_class(text.data(), text.data() + text.size(), kToken) == text.data() + text.size();
}

bool is_field_value(std::string_view text) {
  return skip_field_value(text.data(), text.data() + text.size()) == text.data() + text.size();
}

bool equals_ignore_case(std::string_view a, std::string_view b) {
  using ascii::load;
  using ascii::same_but_for_case;
  const size_t bytes = a.size();
  if (bytes != b.size()) return false;
  const char *x = a.data(), *y = b.data();
  if (bytes >= 8) {
    for (size_t i = 0; i + 8 < bytes; i += 8) {
      if (!same_but_for_case(load<uint64_t>(x + i), load<uint64_t>(y + i))) return false;
    }
    return same_but_for_case(load<uint64_t>(x + bytes - 8),
                             load<uint64_t>(y + bytes - 8));  // may overlap the one before
  }
  if (bytes >= 4) {
    const auto both_ends = [bytes](const char* text) {
      return load<uint32_t>(text) | uint64_t{load<uint32_t>(text + bytes - 4)} << 32;
    };
    return same_but_for_case(both_ends(x), both_ends(y));
  }
  for (size_t i = 0; i < bytes; ++i) {
    if (lower(x[i]) != lower(y[i])) return false;
  }
  return true;
}

// The registered phrases that an edge is likely to send (RFC 9110 §15 and the IANA registry).
std::string_view reason_phrase(int status) {
  switch (status) {
    case 100:
      return "Continue";
    case 101:
      return "Switching Protocols";
    case 102:
      return "Processing";
    case 103:
      return "Early Hints";
    case 200:
      return "OK";
    case 201:
      return "Created";
    case 202:
      return "Accepted";
    case 203:
      return "Non-Authoritative Information";
    case 204:
      return "No Content";
    case 205:
      return "Reset Content";
    case 206:
      return "Partial Content";
    case 300:
      return "Multiple Choices";
    case 301:
      return "Moved Permanently";
    case 302:
      return "Found";
    case 303:
      return "See Other";
    case 304:
      return "Not Modified";
    case 307:
      return "Temporary Redirect";
    case 308:
      return "Permanent Redirect";
    case 400:
      return "Bad Request";
    case 401:
      return "Unauthorized";
    case 402:
      return "Payment Required";
    case 403:
      return "Forbidden";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 406:
      return "Not Acceptable";
    case 407:
      return "Proxy Authentication Required";
    case 408:
      return "Request Timeout";
    case 409:
      return "Conflict";
    case 410:
      return "Gone";
    case 411:
      return "Length Required";
    case 412:
      return "Precondition Failed";
    case 413:
      return "Content Too Large";
    case 414:
      return "URI Too Long";
    case 415:
      return "Unsupported Media Type";
    case 416:
      return "Range Not Satisfiable";
    case 417:
      return "Expectation Failed";
    case 421:
      return "Misdirected Request";
    case 422:
      return "Unprocessable Content";
    case 425:
      return "Too Early";
    case 426:
      return "Upgrade Required";
    case 428:
      return "Precondition Required";
    case 429:
      return "Too Many Requests";
    case 431:
      return "Request Header Fields Too Large";
    case 451:
      return "Unavailable For Legal Reasons";
    case 500:
      return "Internal Server Error";
    case 501:
      return "Not Implemented";
    case 502:
      return "Bad Gateway";
    case 503:
      return "Service Unavailable";
    case 504:
      return "Gateway Timeout";
    case 505:
      return "HTTP Version Not Supported";
    case 507:
      return "Insufficient Storage";
    case 508:
      return "Loop Detected";
    case 511:
      return "Network Authentication Required";
    default:
      return "";
  }
}

std::optional<std::string> query_parameter(std::string_view query, std::string_view name) {
  while (!query.empty()) {
    const std::string_view pair = query.substr(0, query.find('&'));
    query.remove_prefix(std::min(pair.size() + 1, query.size()));
    const size_t equals = pair.find('=');
    const auto key = percent_decode(pair.substr(0, equals), true);
    if (key != name) continue;
    return percent_decode(equals == std::string_view::npos ? std::string_view{} : pair.substr(equals + 1), true);
  }
  return std::nullopt;
}

}  // namespace tidegate::http1
