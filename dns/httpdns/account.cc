// SPDX-License-Identifier: Apache-2.0
#include "dns/httpdns/account.h"

#include <charconv>

namespace tidegate::dns {

const HttpDnsAccount* find_account(const Model& model, std::string_view id) {
  for (const HttpDnsAccount& account : model.httpdns_accounts) {
    if (account.id == id) return &account;
  }
  return nullptr;
}

HttpDnsError check_expiry(std::string_view expiry, uint64_t now_s) {
  uint64_t expiry_s = 0;
  const auto [end, fault] = std::from_chars(expiry.data(), expiry.data() + expiry.size(), expiry_s);
  if (fault != std::errc{} || end != expiry.data() + expiry.size()) return HttpDnsError::invalid_duration;
  if (expiry_s < now_s) return HttpDnsError::signature_expired;
  return expiry_s - now_s > kMaxSignatureLifeS ? HttpDnsError::invalid_duration : HttpDnsError::none;
}

HttpDnsError take_of_client(const HttpDnsContext& context, size_t hosts) {
  const Model& model = context.model();
  if (context.clients == nullptr || hosts == 0 || model.httpdns_client_rate == 0) return HttpDnsError::none;
  const TokenRate rate = TokenRate::per_second(model.httpdns_client_rate, model.httpdns_client_burst);
  const bool taken = context.clients->take(context.client.address, rate, hosts, context.now_ns);
  return taken ? HttpDnsError::none : HttpDnsError::too_many_requests;
}

HttpDnsError take_of_account(const HttpDnsContext& context, const HttpDnsAccount& account, size_t hosts) {
  if (hosts > 1) {
    if (const HttpDnsError error = take_of_client(context, hosts - 1); error != HttpDnsError::none) return error;
  }
  if (account.rate == 0) return HttpDnsError::none;
  const auto index = static_cast<size_t>(&account - context.model().httpdns_accounts.data());
  TokenBucket& bucket = *context.tables.account_buckets[index];
  const TokenRate rate = TokenRate::per_second(account.rate, account.burst);
  return bucket.take(rate, hosts, context.now_ns) ? HttpDnsError::none : HttpDnsError::quota_exceeded;
}

}  // namespace tidegate::dns
