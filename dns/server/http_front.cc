// SPDX-License-Identifier: Apache-2.0
#include "dns/server/http_front.h"

#include <algorithm>

#include "core/clock.h"
#include "core/forwarded_for.h"
#include "dns/httpdns/account.h"
#include "dns/httpdns/alibaba_v1.h"
#include "dns/httpdns/alibaba_v2.h"
#include "dns/httpdns/dnspod.h"
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

HttpFront::HttpFront(std::vector<Cidr> trusted_proxies, TablesSlot& slot, Worker& worker, AddressTable& clients)
    : trusted_proxies_(std::move(trusted_proxies)),
      slot_(slot),
      worker_(worker),
      clients_(clients),
      scratch_(kMaxMessageBytes) {}

void HttpFront::serve(const HttpExchangePtr& exchange) {
  const HttpRequest& request = exchange->request();
  const PinnedTables tables(slot_);
  if (tables.get() == nullptr) {
    return exchange->respond(
        HttpResponse::problem(503, "Service Unavailable", "no configuration has been applied yet"));
  }
  const Client client{client_address(request, trusted_proxies_), QueryTransport::http};
  HttpDnsContext context{client, *tables.get(), worker_, scratch_};
  context.now_s = realtime_ns() / kNsPerS;
  context.now_ns = monotonic_ns();
  if (!is_trusted(client.address)) context.clients = &clients_;
  worker_.now_s = static_cast<uint32_t>(context.now_s);
  exchange->respond(request.path == kDohPath ? serve_doh(request, context) : serve_httpdns(request, context));
}

// If a proxy names no client, its requests are for many clients.
bool HttpFront::is_trusted(const IpAddress& address) const {
  return std::any_of(trusted_proxies_.begin(), trusted_proxies_.end(),
                     [&](const Cidr& network) { return network.contains(address); });
}

HttpResponse HttpFront::serve_doh(const HttpRequest& request, const HttpDnsContext& context) {
  Tally::add(tally_.doh);
  HttpResponse response = answer_doh(request, context.client, context.tables, worker_, scratch_);
  if (response.status >= 400) Tally::add(tally_.doh_refused);
  return response;
}

HttpResponse HttpFront::serve_httpdns(const HttpRequest& request, const HttpDnsContext& context) {
  const bool v2 = request.path == kHttpDnsV2Path, dnspod = request.path == kDnspodPath;
  const auto call = v2 || dnspod ? std::nullopt : parse_httpdns_path(request.path);
  if (!v2 && !dnspod && !call) {
    Tally::add(tally_.unknown_path);
    return HttpResponse::problem(404, "Not Found",
                                 "here: /dns-query, /v2/d, /d, /{account}/d, sign_d, resolve, sign_resolve and ss");
  }
  Tally::add(v2 ? tally_.httpdns_v2 : dnspod ? tally_.httpdns_dnspod : tally_.httpdns);
  const HttpDnsError error = take_of_client(context, 1);
  HttpDnsAnswer answer;
  if (error != HttpDnsError::none) {
    answer = dnspod ? refuse_dnspod(error) : refuse_httpdns(error);
  } else {
    answer = v2       ? answer_httpdns_v2(request, context)
             : dnspod ? answer_dnspod(request, context)
                      : answer_httpdns(*call, request, context);
  }
  if (answer.error != HttpDnsError::none) Tally::add(tally_.httpdns_errors[static_cast<size_t>(answer.error)]);
  const int status = info(answer.error).status;
  HttpResponse response =
      dnspod ? HttpResponse::text(status, std::move(answer.body)) : HttpResponse::json(status, std::move(answer.body));
  response.headers.emplace_back("Cache-Control", "no-store");  // an answer for one client; its lifetime is in the body
  if (status == 429) response.headers.emplace_back("Retry-After", "1");
  return response;
}

}  // namespace tidegate::dns
