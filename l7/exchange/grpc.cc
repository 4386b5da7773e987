// SPDX-License-Identifier: Apache-2.0
#include "l7/exchange/grpc.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "core/clock.h"

namespace tidegate::l7 {
namespace {

struct Unit {
  char letter;
  uint64_t ns;
};
constexpr Unit kUnits[] = {{'n', 1},       {'u', 1'000},        {'m', kNsPerMs},
                           {'S', kNsPerS}, {'M', 60 * kNsPerS}, {'H', 3'600 * kNsPerS}};
constexpr size_t kMostDigits = 8;
constexpr uint64_t kAboveDigits = 100'000'000;

}  // namespace

bool is_grpc(const RequestHead& request) {
  constexpr std::string_view kType = "application/grpc";
  if (request.version != HttpVersion::http2 || request.method != "POST") return false;
  const Field* type = request.fields.find("content-type");
  if (type == nullptr || !type->value.starts_with(kType)) return false;
  const std::string_view rest = type->value.substr(kType.size());
  return rest.empty() || rest.front() == '+' || rest.front() == ';';
}

std::optional<uint64_t> grpc_timeout_ns(const RequestHead& request) {
  const Field* field = request.fields.find("grpc-timeout");
  if (field == nullptr || field->value.size() < 2 || field->value.size() > kMostDigits + 1) return std::nullopt;
  const std::string_view digits = field->value.substr(0, field->value.size() - 1);
  uint64_t count = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), count);
  if (error != std::errc() || end != digits.data() + digits.size()) return std::nullopt;
  for (const Unit& unit : kUnits) {
    if (unit.letter == field->value.back()) return count * unit.ns;
  }
  return std::nullopt;
}

size_t write_grpc_timeout(uint64_t timeout_ns, char* out) {
  for (const Unit& unit : kUnits) {
    const uint64_t count = timeout_ns / unit.ns;
    if (count >= kAboveDigits && unit.letter != 'H') continue;
    const fmt::format_int digits(std::min(count, kAboveDigits - 1));
    std::copy_n(digits.data(), digits.size(), out);
    out[digits.size()] = unit.letter;
    return digits.size() + 1;
  }
  return 0;
}

std::string_view grpc_status_of(Failure failure) {
  switch (failure) {
    case Failure::deadline_exceeded:
    case Failure::total_timeout:
    case Failure::exchange_timeout:
      return "4";  // DEADLINE_EXCEEDED
    case Failure::body_too_large:
    case Failure::rate_limited:
      return "8";  // RESOURCE_EXHAUSTED
    case Failure::unauthenticated:
      return "16";  // UNAUTHENTICATED
    case Failure::forbidden:
    case Failure::cors_refused:
      return "7";  // PERMISSION_DENIED
    case Failure::no_route:
    case Failure::method_not_allowed:
      return "12";  // UNIMPLEMENTED
    case Failure::bad_request:
    case Failure::bad_response:
    case Failure::response_too_large:
    case Failure::too_many_interim:
    case Failure::loop_detected:
      return "13";  // INTERNAL
    case Failure::client_gone:
    case Failure::request_timeout:
    case Failure::request_late:
    case Failure::client_too_slow:
      return "1";  // CANCELLED
    default:
      return "14";  // UNAVAILABLE
  }
}

}  // namespace tidegate::l7
