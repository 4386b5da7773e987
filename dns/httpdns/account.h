// SPDX-License-Identifier: Apache-2.0
// The accounts of HTTPDNS: who asks, and whether a signature of theirs is to be looked at.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "conf/model.h"
#include "dns/httpdns/context.h"
#include "dns/httpdns/errors.h"

namespace tidegate::dns {

constexpr uint64_t kMaxSignatureLifeS = 86'400;

// Null: there is none of that id.
const HttpDnsAccount* find_account(const Model& model, std::string_view id);
// True: `matches(secret)` holds for one of the account's secrets.
template <class Fn>
bool any_secret(const HttpDnsAccount& account, Fn&& matches) {
  bool any = matches(account.secret);
  for (const std::string& secret : account.other_secrets) any = matches(secret) || any;
  return any;
}
// Whether a signature that ends at `expiry` (epoch seconds, as text) is to be looked at now.
HttpDnsError check_expiry(std::string_view expiry, uint64_t now_s);

// A quota counts host names. Takes `hosts` of the client's (`httpdns.client_rate`), or refuses.
HttpDnsError take_of_client(const HttpDnsContext& context, size_t hosts);
// The same of an account's (`rate`), and of the client's for all hosts but the first, which was taken when the request
// came. Called when the account is known to be the one that asks, so that nobody uses up another's.
HttpDnsError take_of_account(const HttpDnsContext& context, const HttpDnsAccount& account, size_t hosts);

}  // namespace tidegate::dns
