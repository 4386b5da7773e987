// SPDX-License-Identifier: Apache-2.0
#include "dns/server/doh.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/crypto.h"

namespace tidegate::dns {
namespace {

constexpr std::string_view kMediaType = "application/dns-message";
constexpr uint32_t kSharedFreshnessS = 1;

bool is_dns_message(std::string_view content_type) {
  const std::string_view type = content_type.substr(0, content_type.find(';'));
  return http1::equals_ignore_case(type.substr(0, type.find_last_not_of(" \t") + 1), kMediaType);
}

HttpResponse method_not_allowed() {
  HttpResponse response = HttpResponse::problem(405, "Method Not Allowed", "GET and POST are served here");
  response.headers.emplace_back("Allow", "GET, POST");
  return response;
}

// A shared cache knows nothing of client subnets. It may keep answers that are the same for all clients, but only for a
// moment. Then changes of the zone are visible soon, and a proxy in front of us can answer a crowd by itself.
std::string cache_control(uint32_t freshness_s, bool is_personal) {
  if (is_personal || freshness_s == 0) return fmt::format("max-age={}, private", freshness_s);
  return fmt::format("max-age={}, s-maxage={}", freshness_s, std::min(freshness_s, kSharedFreshnessS));
}

}  // namespace

HttpResponse answer_doh(const HttpRequest& request, const Client& client, const Tables& tables, Worker& worker,
                        std::span<uint8_t> scratch) {
  std::string message;
  if (request.method == "GET") {
    const auto parameter = request.parameter("dns");
    if (!parameter) return HttpResponse::problem(400, "Bad Request", "the parameter dns is missing or malformed");
    auto decoded = base64url_decode(*parameter);
    if (!decoded)
      return HttpResponse::problem(400, "Bad Request", "dns is not base64url without padding (RFC 8484 §6)");
    message = std::move(*decoded);
  } else if (request.method == "POST") {
    if (!is_dns_message(request.header("content-type"))) {
      return HttpResponse::problem(415, "Unsupported Media Type", "expected application/dns-message");
    }
    message = request.body;
  } else {
    return method_not_allowed();
  }
  if (message.size() > kMaxMessageBytes) {
    return HttpResponse::problem(413, "Content Too Large", "a DNS message has 65535 bytes at most");
  }
  const std::span in(reinterpret_cast<const uint8_t*>(message.data()), message.size());
  const size_t bytes = answer(in, scratch, client, tables, worker);
  if (bytes == 0) return HttpResponse::problem(400, "Bad Request", "not a DNS query");
  HttpResponse response = HttpResponse::text(200, std::string(reinterpret_cast<const char*>(scratch.data()), bytes),
                                             std::string(kMediaType));
  response.headers.emplace_back("Cache-Control",
                                cache_control(freshness_s(scratch.first(bytes)), worker.last_is_personal));
  return response;
}

}  // namespace tidegate::dns
