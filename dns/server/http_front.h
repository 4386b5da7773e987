// SPDX-License-Identifier: Apache-2.0
// HttpFront: the plane's answers over HTTP: DoH at /dns-query (RFC 8484), HTTPDNS at /v2/d, /d and below /{account}/.
// It is behind our L7, which terminates TLS. The client's address is taken from X-Forwarded-For only if a trusted proxy
// sent it.
//
// Threads: the loop's thread of its worker.
#pragma once

#include <array>
#include <vector>

#include "core/address_table.h"
#include "core/http_server.h"
#include "core/ip.h"
#include "dns/httpdns/context.h"
#include "dns/httpdns/errors.h"
#include "dns/query/publish.h"
#include "dns/query/query.h"

namespace tidegate::dns {

struct HttpTally {
  Tally::Count doh{0};
  Tally::Count doh_refused{0};  // answered with a 4xx
  Tally::Count httpdns{0};
  Tally::Count httpdns_v2{0};
  Tally::Count httpdns_dnspod{0};
  std::array<Tally::Count, kHttpDnsErrorCount> httpdns_errors{};
  Tally::Count unknown_path{0};
};

// The client of a request: the peer, or the one that trusted hops name in X-Forwarded-For (core/forwarded_for.h).
IpAddress client_address(const HttpRequest& request, const std::vector<Cidr>& trusted);

class HttpFront {
 public:
  // All except the first are borrowed. `clients` has the quota of each client, over all workers.
  HttpFront(std::vector<Cidr> trusted_proxies, TablesSlot& slot, Worker& worker, AddressTable& clients);
  void serve(const HttpExchangePtr& exchange);
  const HttpTally& tally() const { return tally_; }

 private:
  bool is_trusted(const IpAddress& address) const;
  HttpResponse serve_doh(const HttpRequest& request, const HttpDnsContext& context);
  HttpResponse serve_httpdns(const HttpRequest& request, const HttpDnsContext& context);

  std::vector<Cidr> trusted_proxies_;
  TablesSlot& slot_;
  Worker& worker_;
  AddressTable& clients_;
  HttpTally tally_;
  std::vector<uint8_t> scratch_;  // room for one answer
};

}  // namespace tidegate::dns
