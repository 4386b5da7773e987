// SPDX-License-Identifier: Apache-2.0
// The accounts of HTTPDNS: which account sends a request, and whether its signature must be checked.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "conf/model.h"
#include "conf/model/httpdns.h"
#include "dns/httpdns/context.h"
#include "dns/httpdns/errors.h"

namespace tidegate::dns {

constexpr uint64_t kMaxSignatureLifeS = 86'400;

// Null if there is no account with that id.
const HttpDnsAccount* find_account(const Model& model, std::string_view id);
// Returns true if `matches(secret)` holds for one of the account's secrets.
template <class Fn>
bool any_secret(const HttpDnsAccount& account, Fn&& matches) {
  bool any = matches(account.secret);
  for (const std::string& secret : account.other_secrets) any = matches(secret) || any;
  return any;
}
// Checks the time at which a signature expires: `expiry` is in epoch seconds, as text.
HttpDnsError check_expiry(std::string_view expiry, uint64_t now_s);

// A quota counts host names. Takes `hosts` from the client's quota (`httpdns.client_rate`), or refuses.
HttpDnsError take_of_client(const HttpDnsContext& context, size_t hosts);
// Takes from the account's quota (`rate`). Also takes all hosts except the first from the client's quota; the first was
// taken when the request came. Call it after the account was verified: an account's quota is for its owner alone.
HttpDnsError take_of_account(const HttpDnsContext& context, const HttpDnsAccount& account, size_t hosts);

}  // namespace tidegate::dns
