#include "dns/httpdns.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <vector>

#include "core/crypto.h"
#include "dns/doh.h"
#include "dns/request.h"

namespace tidegate::dns {
namespace {

HttpDnsAnswer refuse(HttpDnsError error) { return {error, fmt::format("{{\"code\":\"{}\"}}", info(error).code)}; }

// Letters, digits, '-', '_' and dots: what a host has, and nothing that JSON would have to escape.
bool is_host(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_' ||
           c == '.';
  });
}

std::vector<std::string_view> split(std::string_view list) {
  std::vector<std::string_view> parts;
  for (size_t start = 0; start <= list.size();) {
    const size_t end = std::min(list.find(',', start), list.size());
    parts.push_back(list.substr(start, end - start));
    start = end + 1;
  }
  return parts;
}

const HttpDnsAccount* find_account(const Model& model, std::string_view id) {
  for (const HttpDnsAccount& account : model.httpdns_accounts) {
    if (account.id == id) return &account;
  }
  return nullptr;
}

HttpDnsError check_signature(const HttpRequest& request, std::string_view host, const HttpDnsAccount& account,
                             uint64_t now_s) {
  const auto expiry = request.parameter("t");
  const auto signature = request.parameter("s");
  if (!expiry || !signature || expiry->empty() || signature->empty()) return HttpDnsError::missing_argument;
  uint64_t expiry_s = 0;
  const auto [end, fault] = std::from_chars(expiry->data(), expiry->data() + expiry->size(), expiry_s);
  if (fault != std::errc{} || end != expiry->data() + expiry->size()) return HttpDnsError::invalid_duration;
  if (expiry_s < now_s) return HttpDnsError::signature_expired;
  if (expiry_s - now_s > kMaxSignatureLifeS) return HttpDnsError::invalid_duration;
  const bool equal = equal_constant_time(httpdns_signature(host, account.secret, *expiry), *signature);
  return equal ? HttpDnsError::none : HttpDnsError::invalid_signature;
}

// What a name resolves to, for one address family.
struct Resolved {
  HttpDnsError error = HttpDnsError::none;
  std::string addresses;  // "a","b" as a JSON list has them
  uint32_t ttl_s = 0;
};

Resolved resolve(std::string_view host, uint16_t type, const IpAddress& client, const Tables& tables, Worker& worker,
                 std::span<uint8_t> scratch) {
  Resolved resolved;
  const auto name = Name::from_text(host);
  if (!is_host(host) || !name) {
    resolved.error = HttpDnsError::invalid_host;
    return resolved;
  }
  std::array<uint8_t, kHeaderBytes + Name::kMaxBytes + 4> query;
  const size_t query_bytes = write_query(query, name->wire(), type);
  const size_t bytes = answer({query.data(), query_bytes}, scratch, {client, Transport::http}, tables, worker);
  const auto message = std::span<const uint8_t>(scratch).first(bytes);
  const auto rcode = static_cast<Rcode>(load_u16(&message[header::kFlags]) & header::kRcodeMask);
  if (rcode == Rcode::refused || rcode == Rcode::yxdomain) {
    resolved.error = HttpDnsError::invalid_host;  // not a name of ours: the client asks somebody else
  } else if (rcode != Rcode::noerror && rcode != Rcode::nxdomain) {
    resolved.error = HttpDnsError::internal_error;
  }
  resolved.ttl_s = freshness_s(message);
  for_each_record(message, [&](const RecordView& record) {
    if (record.section != RecordView::Section::answer || record.type != type) return;
    IpAddress address;
    address.family = type == rrtype::kA ? IpAddress::Family::v4 : IpAddress::Family::v6;
    if (record.rdata.size() != address.size()) return;
    std::memcpy(address.bytes.data(), record.rdata.data(), address.size());
    resolved.addresses += fmt::format("{}\"{}\"", resolved.addresses.empty() ? "" : ",", address.to_string());
  });
  return resolved;
}

struct Families {
  bool v4 = true;
  bool v6 = false;
};

// `query=4`, `6` or `4,6`; anything else is the default, IPv4.
Families wanted_families(const HttpRequest& request) {
  const auto query = request.parameter("query");
  if (!query) return {};
  Families families{false, false};
  for (const std::string_view family : split(*query)) {
    families.v4 = families.v4 || family == "4";
    families.v6 = families.v6 || family == "6";
  }
  return families.v4 || families.v6 ? families : Families{};
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
        resolved = resolve(host, v6 ? rrtype::kAaaa : rrtype::kA, client, tables, worker, scratch);
        if (resolved.error != HttpDnsError::none) return refuse(resolved.error);
        ttl_s = std::min(ttl_s, resolved.ttl_s);
      }
      if (!v6 || wanted) addresses += fmt::format(",\"{}\":[{}]", v6 ? "ipsv6" : "ips", resolved.addresses);
    }
    return {HttpDnsError::none, fmt::format("{{\"host\":\"{}\"{},\"ttl\":{},\"origin_ttl\":{},\"client_ip\":\"{}\"}}",
                                            host, addresses, ttl_s, ttl_s, client.to_string())};
  }

  // Appends the entries of one host as one client sees it.
  HttpDnsError append_batch(std::string_view host, const IpAddress& client, std::string& entries) const {
    for (const bool v6 : {false, true}) {
      if (!(v6 ? families.v6 : families.v4)) continue;
      const uint16_t type = v6 ? rrtype::kAaaa : rrtype::kA;
      const Resolved resolved = resolve(host, type, client, tables, worker, scratch);
      if (resolved.error != HttpDnsError::none) return resolved.error;
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
  const auto names = split(hosts);
  if (names.size() > kMaxBatchHosts || clients.size() > kMaxBatchHosts || (names.size() > 1 && clients.size() > 1)) {
    return refuse(HttpDnsError::too_many_hosts);
  }
  std::string entries;
  for (const std::string_view host : names) {
    for (const IpAddress& client : clients) {
      const HttpDnsError error = lookups.append_batch(host, client, entries);
      if (error != HttpDnsError::none) return refuse(error);
    }
  }
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
  return std::nullopt;
}

std::string httpdns_signature(std::string_view host, std::string_view secret, std::string_view expiry_s) {
  return md5_hex(fmt::format("{}-{}-{}", host, secret, expiry_s));
}

HttpDnsAnswer answer_httpdns(const HttpDnsCall& call, const HttpRequest& request, const Client& client,
                             const Tables& tables, Worker& worker, uint64_t now_s, std::span<uint8_t> scratch) {
  if (request.method != "GET") return refuse(HttpDnsError::method_not_allowed);
  if (!is_host(call.account)) return refuse(HttpDnsError::invalid_account);
  const HttpDnsAccount* account = find_account(*tables.authority->model, call.account);
  if (account == nullptr) return refuse(HttpDnsError::account_not_exists);
  if (!call.is_signed && !account->allow_unsigned) return refuse(HttpDnsError::unsigned_interface_disabled);
  const auto host = request.parameter("host");
  if (!host || host->empty()) return refuse(HttpDnsError::missing_argument);
  if (call.is_signed) {
    const HttpDnsError error = check_signature(request, *host, *account, now_s);
    if (error != HttpDnsError::none) return refuse(error);
  }
  std::vector<IpAddress> clients;
  if (const auto ip = request.parameter("ip"); ip && !ip->empty()) {
    for (const std::string_view text : split(*ip)) {
      const auto address = IpAddress::parse(text);
      if (!address) return refuse(HttpDnsError::missing_argument);
      clients.push_back(address->unmapped());
    }
  } else {
    clients.push_back(client.address);
  }
  const Lookups lookups{tables, worker, scratch, wanted_families(request)};
  if (call.batch) return answer_batch(lookups, *host, clients);
  if (clients.size() > 1) return refuse(HttpDnsError::missing_argument);
  return lookups.single(*host, clients.front());
}

}  // namespace tidegate::dns
