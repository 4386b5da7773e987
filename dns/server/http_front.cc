// SPDX-License-Identifier: Apache-2.0
#include "dns/server/http_front.h"

#include "core/clock.h"
#include "core/forwarded_for.h"
#include "dns/httpdns/alibaba_v1.h"
#include "dns/httpdns/alibaba_v2.h"
#include "dns/server/doh.h"

namespace tidegate::dns {

IpAddress client_address(const HttpRequest& request, const std::vector<Cidr>& trusted) {
  std::optional<IpAddress> peer;
  if (request.peer) peer = request.peer->address.unmapped();
  ForwardedForWalk walk(peer, trusted);
  for (auto field = request.headers.rbegin(); field != request.headers.rend() && !walk.over(); ++field) {
    if (field->first == "x-forwarded-for") walk.take(field->second);
  }
  return walk.client();
}

HttpFront::HttpFront(std::vector<Cidr> trusted_proxies, TablesSlot& slot, Worker& worker)
    : trusted_proxies_(std::move(trusted_proxies)), slot_(slot), worker_(worker), scratch_(kMaxMessageBytes) {}

void HttpFront::serve(const HttpExchangePtr& exchange) {
  const HttpRequest& request = exchange->request();
  const PinnedTables tables(slot_);
  if (tables.get() == nullptr) {
    return exchange->respond(
        HttpResponse::problem(503, "Service Unavailable", "no configuration has been applied yet"));
  }
  const uint64_t now_s = realtime_ns() / kNsPerS;
  worker_.now_s = static_cast<uint32_t>(now_s);
  Client client{client_address(request, trusted_proxies_), Transport::http};
  if (request.path == kDohPath) {
    Tally::add(tally_.doh);
    HttpResponse response = answer_doh(request, client, *tables.get(), worker_, scratch_);
    if (response.status >= 400) Tally::add(tally_.doh_refused);
    return exchange->respond(std::move(response));
  }
  const bool v2 = request.path == kHttpDnsV2Path;
  const auto call = v2 ? std::nullopt : parse_httpdns_path(request.path);
  if (!v2 && !call) {
    Tally::add(tally_.unknown_path);
    return exchange->respond(HttpResponse::problem(
        404, "Not Found", "here: /dns-query, /v2/d, /{account}/d, sign_d, resolve, sign_resolve and ss"));
  }
  Tally::add(v2 ? tally_.httpdns_v2 : tally_.httpdns);
  HttpDnsAnswer answer = v2 ? answer_httpdns_v2(request, client, *tables.get(), worker_, now_s, scratch_)
                            : answer_httpdns(*call, request, client, *tables.get(), worker_, now_s, scratch_);
  if (answer.error != HttpDnsError::none) Tally::add(tally_.httpdns_errors[static_cast<size_t>(answer.error)]);
  HttpResponse response = HttpResponse::json(info(answer.error).status, std::move(answer.body));
  response.headers.emplace_back("Cache-Control", "no-store");  // an answer for one client; its lifetime is in the JSON
  exchange->respond(std::move(response));
}

}  // namespace tidegate::dns
