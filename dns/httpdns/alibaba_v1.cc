// SPDX-License-Identifier: Apache-2.0
#include "dns/httpdns/alibaba_v1.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "conf/model.h"
#include "conf/model/httpdns.h"
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

constexpr uint16_t kTypes[] = {rrtype::kA, rrtype::kAaaa};

bool is_wanted(uint16_t type, const Families& families) { return type == rrtype::kA ? families.v4 : families.v6; }

HttpDnsAnswer answer_single(std::string_view host, const IpAddress& client, const Families& families,
                            const HttpDnsContext& context) {
  std::string addresses;
  uint32_t ttl_s = UINT32_MAX;
  for (const uint16_t type : kTypes) {
    const bool v4 = type == rrtype::kA;
    Resolved resolved;
    if (is_wanted(type, families)) {
      resolved = resolve_host(host, type, client, context);
      if (error_of(resolved.kind) != HttpDnsError::none) return refuse_httpdns(error_of(resolved.kind));
      ttl_s = std::min(ttl_s, resolved.ttl_s);
    } else if (!v4) {
      continue;  // "ips" is in every answer
    }
    addresses += fmt::format(",\"{}\":[{}]", v4 ? "ips" : "ipsv6", json_members(resolved.addresses));
  }
  return {HttpDnsError::none, fmt::format("{{\"host\":\"{}\"{},\"ttl\":{},\"origin_ttl\":{},\"client_ip\":\"{}\"}}",
                                          host, addresses, ttl_s, ttl_s, client.to_string())};
}

// The entries of a batch. A host that is not ours, or that cannot be answered now, has no entry: the client asks
// elsewhere for it. The other hosts are still answered.
struct Batch {
  std::string entries;
  HttpDnsError left_out = HttpDnsError::none;  // why the last host without an entry has no entry

  void append(std::string_view host, const IpAddress& client, uint16_t type, const Resolved& resolved) {
    if (error_of(resolved.kind) != HttpDnsError::none) {
      left_out = error_of(resolved.kind);
      return;
    }
    entries +=
        fmt::format("{}{{\"host\":\"{}\",\"client_ip\":\"{}\",\"ips\":[{}],\"type\":{},\"ttl\":{},\"origin_ttl\":{}}}",
                    entries.empty() ? "" : ",", host, client.to_string(), json_members(resolved.addresses), type,
                    resolved.ttl_s, resolved.ttl_s);
  }
};

HttpDnsAnswer answer_batch(const std::vector<std::string_view>& hosts, const std::vector<IpAddress>& clients,
                           const Families& families, const HttpDnsContext& context) {
  Batch batch;
  for (const std::string_view host : hosts) {
    for (const IpAddress& client : clients) {
      for (const uint16_t type : kTypes) {
        if (!is_wanted(type, families)) continue;
        const Resolved resolved = resolve_host(host, type, client, context);
        if (resolved.kind == Resolved::Kind::malformed) return refuse_httpdns(HttpDnsError::invalid_host);
        batch.append(host, client, type, resolved);
      }
    }
  }
  if (batch.entries.empty()) return refuse_httpdns(batch.left_out);
  return {HttpDnsError::none, fmt::format("{{\"dns\":[{}]}}", batch.entries)};
}

// Checks that the account may ask: by its signature over `signed_text`, or without one if the account allows that.
HttpDnsError check_account(bool is_signed, const HttpRequest& request, std::string_view signed_text,
                           const HttpDnsAccount& account, uint64_t now_s) {
  if (is_signed) return check_signature(request, signed_text, account, now_s);
  return account.allow_unsigned ? HttpDnsError::none : HttpDnsError::unsigned_interface_disabled;
}

HttpDnsAnswer answer_ss(const HttpRequest& request, const HttpDnsAccount& account, const HttpDnsContext& context) {
  const bool is_signed = request.parameter("s") || !account.allow_unsigned;
  const std::string nonce = request.parameter("n").value_or("");
  HttpDnsError error = check_account(is_signed, request, nonce, account, context.now_s);
  if (error == HttpDnsError::none) error = take_of_account(context, account, 1);
  if (error != HttpDnsError::none) return refuse_httpdns(error);
  return answer_service(request.parameter("region").value_or(""), context.client.address, context.tables);
}

// The client addresses of the parameter ip, or the address of the sender if there is no ip.
HttpDnsError read_clients(const HttpRequest& request, const Client& sender, std::vector<IpAddress>& clients) {
  const std::string ip = request.parameter("ip").value_or("");
  if (ip.empty()) {
    clients.push_back(sender.address);
    return HttpDnsError::none;
  }
  for (const std::string_view text : split_list(ip)) {
    const auto address = IpAddress::parse(text);
    if (!address) return HttpDnsError::missing_argument;
    clients.push_back(address->unmapped());
  }
  return HttpDnsError::none;
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

HttpDnsAnswer answer_httpdns(const HttpDnsCall& call, const HttpRequest& request, const HttpDnsContext& context) {
  if (request.method != "GET") return refuse_httpdns(HttpDnsError::method_not_allowed);
  if (!is_host(call.account)) return refuse_httpdns(HttpDnsError::invalid_account);
  const HttpDnsAccount* account = find_account(context.model(), call.account);
  if (account == nullptr) return refuse_httpdns(HttpDnsError::account_not_exists);
  if (call.service) return answer_ss(request, *account, context);
  const std::string list = request.parameter("host").value_or("");
  if (list.empty() && (call.is_signed || account->allow_unsigned)) {
    return refuse_httpdns(HttpDnsError::missing_argument);
  }
  HttpDnsError error = check_account(call.is_signed, request, list, *account, context.now_s);
  if (error != HttpDnsError::none) return refuse_httpdns(error);
  std::vector<IpAddress> clients;
  if (error = read_clients(request, context.client, clients); error != HttpDnsError::none) return refuse_httpdns(error);
  const Families families = wanted_families(request.parameter("query").value_or(""));
  if (!call.batch) {
    if (clients.size() > 1) return refuse_httpdns(HttpDnsError::missing_argument);
    error = take_of_account(context, *account, 1);
    return error == HttpDnsError::none ? answer_single(list, clients.front(), families, context)
                                       : refuse_httpdns(error);
  }
  // Several hosts for one client, or one host for several clients, not both.
  const auto hosts = split_list(list);
  if (hosts.size() > kMaxBatchHosts || clients.size() > kMaxBatchHosts || (hosts.size() > 1 && clients.size() > 1)) {
    return refuse_httpdns(HttpDnsError::too_many_hosts);
  }
  error = take_of_account(context, *account, hosts.size() * clients.size());
  return error == HttpDnsError::none ? answer_batch(hosts, clients, families, context) : refuse_httpdns(error);
}

}  // namespace tidegate::dns
