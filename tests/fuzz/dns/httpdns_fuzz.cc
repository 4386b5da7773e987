// SPDX-License-Identifier: Apache-2.0
// Any request target as HTTPDNS or DoH must give JSON or a DNS message, never anything else. Text after "sealed:" is
// sealed first, so that the fuzzer reaches the parameters inside the cipher.
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <vector>

#include "core/aes.h"
#include "core/crypto.h"
#include "core/des.h"
#include "dns/httpdns/alibaba_v1.h"
#include "dns/httpdns/alibaba_v2.h"
#include "dns/httpdns/dnspod.h"
#include "dns/server/doh.h"
#include "dns/server/http_front.h"
#include "tests/fuzz/dns/edge.h"

using namespace tidegate;
using namespace tidegate::dns;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t bytes) {
  static const auto tables = fuzz::make_tables();
  static Worker worker(HashKey{1, 2});
  static std::vector<uint8_t> scratch(kMaxMessageBytes);
  const std::string target(reinterpret_cast<const char*>(data), bytes);
  HttpRequest request;
  request.method = "GET";
  const size_t mark = target.find('?');
  request.path = target.substr(0, mark);
  request.query = mark == std::string::npos ? "" : target.substr(mark + 1);
  request.peer = Endpoint{*IpAddress::parse("10.1.0.1"), 1};
  request.headers.emplace_back("x-forwarded-for", request.query);
  const Client client{client_address(request, {*Cidr::parse("10.1.0.0/16")}), QueryTransport::http};
  const HttpDnsContext context{client, *tables, worker, scratch, 1'700'000'000};
  if (request.path == kDohPath) {
    const HttpResponse response = answer_doh(request, client, *tables, worker, scratch);
    if (response.status != 200 && response.status != 400 && response.status != 413) std::abort();
  } else if (request.path == kHttpDnsV2Path) {
    constexpr std::string_view kSealed = "sealed:";
    if (request.query.substr(0, kSealed.size()) == kSealed) {
      const std::string sealed = aes128_seal(AesMode::gcm, *hex_decode("000102030405060708090a0b0c0d0e0f"),
                                             std::string_view(request.query).substr(kSealed.size()));
      request.query = "id=1&m=2&enc=" + hex_encode(sealed);
    }
    const HttpDnsAnswer answer = answer_httpdns_v2(request, context);
    if (!nlohmann::json::accept(answer.body)) std::abort();
  } else if (request.path == kDnspodPath) {
    constexpr std::string_view kSealed = "sealed:";  // the names; the text after '&' is not sealed
    if (request.query.substr(0, kSealed.size()) == kSealed) {
      const size_t end = std::min(request.query.find('&'), request.query.size());
      const std::string dn = request.query.substr(kSealed.size(), end - kSealed.size());
      request.query = "id=1&dn=" + hex_encode(des_seal("12345678", dn)) + request.query.substr(end);
    }
    if (answer_dnspod(request, context).error == HttpDnsError::internal_error) std::abort();
  } else if (const auto call = parse_httpdns_path(request.path)) {
    const HttpDnsAnswer answer = answer_httpdns(*call, request, context);
    if (!nlohmann::json::accept(answer.body)) std::abort();
  }
  return 0;
}
