// SPDX-License-Identifier: Apache-2.0
// Auth: who sends a request, and what they may do. On the unix socket the kernel identifies the user (SO_PEERCRED). On
// TCP a bearer token does.
#pragma once

#include <sys/types.h>

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/crypto.h"
#include "core/http_server.h"
#include "core/result.h"

namespace tidegate {

// A viewer reads. An operator_ also drains and purges. A publisher also changes the configuration. An admin may do
// everything. A replica is outside this order: it reads, and takes the stream and the objects (with private keys) that
// a follower needs.
enum class Role : uint8_t { none, viewer, operator_, publisher, admin, replica };

const char* name(Role role);
std::optional<Role> parse_role(std::string_view text);  // the roles that a token may have
bool allows(Role have, Role need);

struct Principal {
  Role role = Role::none;
  std::string name;  // the name in the audit trail: "uid:0", or the token's name
  // The owner of Idempotency-Keys: "uid:0", or a keyed hash of the token. Two tokens may share a name, but never this.
  std::string key_space;
  bool shares_name = false;  // another token has the same name
};

// The token file: one `ROLE TOKEN [name]` per line; `#` starts a comment. A name may not begin with "uid:", because
// users of the unix socket have such names. Only digests of the tokens are kept for comparison.
class Tokens {
 public:
  static constexpr size_t kMinTokenBytes = 16;

  static Result<Tokens> parse(std::string_view text, const std::string& file_name);
  static Result<Tokens> load(const std::string& path);  // warns when others may read the file

  const Principal* find(std::string_view token) const;
  // The first `replica` token of the file. This control presents it to the other controls of the fleet. It may be
  // empty.
  const std::string& replica_token() const { return replica_token_; }
  size_t size() const { return entries_.size(); }

 private:
  struct Entry {
    Sha256 digest;
    Principal principal;
  };
  std::vector<Entry> entries_;
  std::string replica_token_;
};

class Auth {
 public:
  Auth(Tokens tokens, uid_t own_uid) : tokens_(std::move(tokens)), own_uid_(own_uid) {}
  void replace_tokens(Tokens tokens) { tokens_ = std::move(tokens); }

  // An Error means 401: a token was needed, and it was missing or unknown. On the unix socket root and this process's
  // own user are admins. Every other user that may connect is a viewer.
  Result<Principal> identify(const HttpRequest& request) const;

 private:
  Tokens tokens_;
  uid_t own_uid_;
};

}  // namespace tidegate
