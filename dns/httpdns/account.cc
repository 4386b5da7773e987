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

}  // namespace tidegate::dns
