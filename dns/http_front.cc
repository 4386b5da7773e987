#include "dns/http_front.h"

#include <algorithm>

#include "core/clock.h"
#include "dns/doh.h"
#include "dns/httpdns_v2.h"

namespace tidegate::dns {

IpAddress client_address(const HttpRequest& request, const std::vector<Cidr>& trusted) {
  const auto is_trusted = [&](const IpAddress& hop) {
    return std::any_of(trusted.begin(), trusted.end(), [&](const Cidr& network) { return network.contains(hop); });
  };
  // Over a unix socket there is no peer address; whoever may open it is as trusted as any proxy.
  IpAddress client = request.peer ? request.peer->address.unmapped() : IpAddress{};
  if (request.peer && !is_trusted(client)) return client;
  for (auto field = request.headers.rbegin(); field != request.headers.rend(); ++field) {
    if (field->first != "x-forwarded-for") continue;
    std::string_view list = field->second;
    while (!list.empty()) {
      const size_t comma = list.rfind(',');
      std::string_view hop = comma == std::string_view::npos ? list : list.substr(comma + 1);
      list = comma == std::string_view::npos ? std::string_view() : list.substr(0, comma);
      while (!hop.empty() && (hop.front() == ' ' || hop.front() == '\t')) hop.remove_prefix(1);
      while (!hop.empty() && (hop.back() == ' ' || hop.back() == '\t')) hop.remove_suffix(1);
      const auto address = IpAddress::parse(hop);
      if (!address) return client;
      client = address->unmapped();
      if (!is_trusted(client)) return client;
    }
  }
  return client;
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
