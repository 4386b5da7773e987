// SPDX-License-Identifier: Apache-2.0
// The keys of authenticate: how a client shows who it is.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "conf/model.h"
#include "conf/policy_model.h"

namespace tidegate {

// Somebody who is known by a secret of which only a hash is kept.
struct KnownClient {
  std::string name;
  std::string hash;
  std::vector<std::string> roles;
};

struct ApiKeys {
  bool enabled = false;
  std::string header = "X-API-Key";
  std::string query;  // a parameter of the query; empty: not read there
  std::vector<KnownClient> keys;
};

struct BasicUsers {
  bool enabled = false;
  std::vector<KnownClient> users;
};

struct JwtRules {
  bool enabled = false;
  Blob keys;  // a JWK set (RFC 7517)
  std::vector<std::string> algorithms;
  std::string issuer;
  std::vector<std::string> audience;  // a token is for one of them
  uint64_t skew_s = 60;
  std::string cookie;  // where the token is besides Authorization
  std::string name_claim = "sub";
  std::string roles_claim = "roles";
};

struct AuthenticatePolicy final : PolicyPart {
  std::string realm = "tidegate";
  bool optional = false;
  ApiKeys api_keys;
  BasicUsers basic;
  JwtRules jwt;
  bool keep_credentials = true;
  std::string identity_header;
};

// The cost of one check of a password must stay below some milliseconds, because a worker computes it.
constexpr uint64_t kPasswordRoundsMost = 20'000;  // of sha512crypt and sha256crypt
constexpr uint64_t kPasswordCostMost = 7;         // of bcrypt: 2^7 rounds

// Whether `setting` is a hash of crypt(5) that is taken: $6$, $5$, $2y$ or $2b$, within the bounds.
bool is_password_hash(std::string_view setting);

}  // namespace tidegate
