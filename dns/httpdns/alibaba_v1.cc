// SPDX-License-Identifier: Apache-2.0
#include "dns/httpdns/alibaba_v1.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "core/crypto.h"
#include "dns/httpdns/account.h"
#include "dns/httpdns/resolve.h"
#include "dns/httpdns/service.h"
#include "dns/limits.h"

namespace tidegate::dns {
namespace {

HttpDnsError check_signature(const HttpRequest& request, std::string_view signed_text, const HttpDnsAccount& account,
                             uint64_t now_s) {
  const auto expiry = request.parameter("t");
  const auto signature = request.parameter("s");
  if (!expiry || !signature || expiry->empty() || signature->empty()) return HttpDnsError::missing_argument;
  if (const HttpDnsError error = check_expiry(*expiry, now_s); error != HttpDnsError::none) return error;
  const bool equal = any_secret(account, [&](std::string_view secret) {
    return equal_constant_time(httpdns_signature(signed_text, secret, *expiry), *signature);
  });
  return equal ? HttpDnsError::none : HttpDnsError::invalid_signature;
}

HttpDnsError error_of(Resolved::Kind kind) {
  switch (kind) {
    case Resolved::Kind::foreign:
    case Resolved::Kind::malformed:
      return HttpDnsError::invalid_host;
    case Resolved::Kind::failed:
      return HttpDnsError::internal_error;
    default:
      return HttpDnsError::none;
  }
}

// One call under way: what all its lookups share.
struct Lookups {
  const Tables& tables;
  Worker& worker;
  std::span<uint8_t> scratch;
  Families families;

  HttpDnsAnswer single(std::string_view host, const IpAddress& client) const {
    std::string addresses;
    uint32_t ttl_s = UINT32_MAX;
    for (const bool v6 : {false, true}) {
      const bool wanted = v6 ? families.v6 : families.v4;
      Resolved resolved;
      if (wanted) {
        resolved = resolve_host(host, v6 ? rrtype::kAaaa : rrtype::kA, client, tables, worker, scratch);
        if (error_of(resolved.kind) != HttpDnsError::none) return refuse_httpdns(error_of(resolved.kind));
        ttl_s = std::min(ttl_s, resolved.ttl_s);
      }
      if (!v6 || wanted) addresses += fmt::format(",\"{}\":[{}]", v6 ? "ipsv6" : "ips", resolved.addresses);
    }
    return {HttpDnsError::none, fmt::format("{{\"host\":\"{}\"{},\"ttl\":{},\"origin_ttl\":{},\"client_ip\":\"{}\"}}",
                                            host, addresses, ttl_s, ttl_s, client.to_string())};
  }

  // Appends the entries of one host as one client sees it. A name of others has none: the client asks them.
  HttpDnsError append_batch(std::string_view host, const IpAddress& client, std::string& entries) const {
    for (const bool v6 : {false, true}) {
      if (!(v6 ? families.v6 : families.v4)) continue;
      const uint16_t type = v6 ? rrtype::kAaaa : rrtype::kA;
      const Resolved resolved = resolve_host(host, type, client, tables, worker, scratch);
      if (resolved.kind == Resolved::Kind::foreign) return HttpDnsError::none;
      if (error_of(resolved.kind) != HttpDnsError::none) return error_of(resolved.kind);
      entries += fmt::format(
          "{}{{\"host\":\"{}\",\"client_ip\":\"{}\",\"ips\":[{}],\"type\":{},\"ttl\":{},\"origin_ttl\":{}}}",
          entries.empty() ? "" : ",", host, client.to_string(), resolved.addresses, type, resolved.ttl_s,
          resolved.ttl_s);
    }
    return HttpDnsError::none;
  }
};

// Several hosts for one client, or one host for several clients, not both.
HttpDnsAnswer answer_batch(const Lookups& lookups, std::string_view hosts, const std::vector<IpAddress>& clients) {
  const auto names = split_list(hosts);
  if (names.size() > kMaxBatchHosts || clients.size() > kMaxBatchHosts || (names.size() > 1 && clients.size() > 1)) {
    return refuse_httpdns(HttpDnsError::too_many_hosts);
  }
  std::string entries;
  for (const std::string_view host : names) {
    for (const IpAddress& client : clients) {
      const HttpDnsError error = lookups.append_batch(host, client, entries);
      if (error != HttpDnsError::none) return refuse_httpdns(error);
    }
  }
  if (entries.empty()) return refuse_httpdns(HttpDnsError::invalid_host);
  return {HttpDnsError::none, fmt::format("{{\"dns\":[{}]}}", entries)};
}

}  // namespace

std::optional<HttpDnsCall> parse_httpdns_path(std::string_view path) {
  if (path.empty() || path.front() != '/') return std::nullopt;
  const size_t slash = path.find('/', 1);
  if (slash == std::string_view::npos) return std::nullopt;
  const std::string_view account = path.substr(1, slash - 1);
  const std::string_view interface = path.substr(slash + 1);
  if (interface == "d") return HttpDnsCall{account, false, false};
  if (interface == "sign_d") return HttpDnsCall{account, true, false};
  if (interface == "resolve") return HttpDnsCall{account, false, true};
  if (interface == "sign_resolve") return HttpDnsCall{account, true, true};
  if (interface == "ss") return HttpDnsCall{.account = account, .service = true};
  return std::nullopt;
}

std::string httpdns_signature(std::string_view host, std::string_view secret, std::string_view expiry_s) {
  return md5_hex(fmt::format("{}-{}-{}", host, secret, expiry_s));
}

HttpDnsAnswer answer_httpdns(const HttpDnsCall& call, const HttpRequest& request, const Client& client,
                             const Tables& tables, Worker& worker, uint64_t now_s, std::span<uint8_t> scratch) {
  if (request.method != "GET") return refuse_httpdns(HttpDnsError::method_not_allowed);
  if (!is_host(call.account)) return refuse_httpdns(HttpDnsError::invalid_account);
  const HttpDnsAccount* account = find_account(*tables.authority->model, call.account);
  if (account == nullptr) return refuse_httpdns(HttpDnsError::account_not_exists);
  if (call.service) {
    if (request.parameter("s") || !account->allow_unsigned) {
      const HttpDnsError error = check_signature(request, request.parameter("n").value_or(""), *account, now_s);
      if (error != HttpDnsError::none) return refuse_httpdns(error);
    }
    return answer_service(request.parameter("region").value_or(""), client.address, tables);
  }
  if (!call.is_signed && !account->allow_unsigned) return refuse_httpdns(HttpDnsError::unsigned_interface_disabled);
  const auto host = request.parameter("host");
  if (!host || host->empty()) return refuse_httpdns(HttpDnsError::missing_argument);
  if (call.is_signed) {
    const HttpDnsError error = check_signature(request, *host, *account, now_s);
    if (error != HttpDnsError::none) return refuse_httpdns(error);
  }
  std::vector<IpAddress> clients;
  if (const auto ip = request.parameter("ip"); ip && !ip->empty()) {
    for (const std::string_view text : split_list(*ip)) {
      const auto address = IpAddress::parse(text);
      if (!address) return refuse_httpdns(HttpDnsError::missing_argument);
      clients.push_back(address->unmapped());
    }
  } else {
    clients.push_back(client.address);
  }
  const Lookups lookups{tables, worker, scratch, wanted_families(request.parameter("query").value_or(""))};
  if (call.batch) return answer_batch(lookups, *host, clients);
  if (clients.size() > 1) return refuse_httpdns(HttpDnsError::missing_argument);
  return lookups.single(*host, clients.front());
}

}  // namespace tidegate::dns
