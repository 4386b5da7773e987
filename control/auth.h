// SPDX-License-Identifier: Apache-2.0
// Auth: who is asking, and what they may do. Over the unix socket the kernel says who (SO_PEERCRED); over TCP a bearer
// token does.
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

// viewer reads; operator_ also drains and purges; publisher also changes the configuration; admin may do everything.
// replica stands aside: it reads, and takes the stream and the objects (private keys among them) that a follower needs.
enum class Role : uint8_t { none, viewer, operator_, publisher, admin, replica };

const char* name(Role role);
std::optional<Role> parse_role(std::string_view text);  // the roles that a token may carry
bool allows(Role have, Role need);

struct Principal {
  Role role = Role::none;
  std::string name;  // as the audit trail calls them: "uid:0", or the token's name
  // Whose Idempotency-Keys these are: "uid:0", or a keyed hash of the token. Unlike a name, no two tokens share it.
  std::string key_space;
  bool shares_name = false;  // with another token
};

// The token file: one `ROLE TOKEN [name]` a line, `#` starts a comment. A name does not begin with "uid:", which is how
// users of the unix socket are called. Only digests of the tokens are kept for
// comparison.
class Tokens {
 public:
  static constexpr size_t kMinTokenBytes = 16;
  static constexpr size_t kMaxTokens = 4096;

  static Result<Tokens> parse(std::string_view text, const std::string& file_name);
  static Result<Tokens> load(const std::string& path);  // warns when others may read the file

  const Principal* find(std::string_view token) const;
  // The first `replica` token of the file: what this control presents to the other controls of the fleet. Or empty.
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

  // An Error is a 401: a token was needed and was missing or unknown. On the unix socket root and our own user are
  // admin; anybody else whom the file's mode lets in may read.
  Result<Principal> identify(const HttpRequest& request) const;

 private:
  Tokens tokens_;
  uid_t own_uid_;
};

}  // namespace tidegate
