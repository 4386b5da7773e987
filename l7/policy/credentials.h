// SPDX-License-Identifier: Apache-2.0
// Credentials in a request: they are read from its fields, and checked against stored hashes.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "conf/policy/authenticate.h"
#include "core/hash.h"
#include "core/token_bucket.h"
#include "l7/limits.h"
#include "l7/plan/known_clients.h"
#include "l7/policy/policy.h"
#include "l7/wire/arena.h"
#include "l7/wire/message.h"

namespace tidegate::l7::policy {

// The credentials of an Authorization field with that scheme (RFC 9110 §11.4). Nothing if there is none.
std::optional<std::string_view> authorization_of(const RequestHead& request, std::string_view scheme);

// Whether a request shows one credential with different values: in fields of that name, in cookies, or in parameters of
// the query. We would judge by one of them, and the backend may read another.
bool fields_differ(const RequestHead& request, std::string_view lower);
bool cookies_differ(const RequestHead& request, std::string_view name);
bool parameters_differ(std::string_view query, std::string_view name);

// Whether the query has a parameter of that name, and the decoded value of the first one. Nothing if its escapes are
// malformed. The value is in the query or in the arena.
bool has_parameter(std::string_view query, std::string_view name);
std::optional<std::string_view> parameter_of(std::string_view query, std::string_view name, Arena& arena);

// Removes each cookie of that name from the Cookie fields, and a field that has no other.
void remove_cookie(FieldList& fields, std::string_view name, Arena& arena);

// The query without the parameters of that name, however they are encoded. The others stay as they are.
std::string_view query_without(std::string_view query, std::string_view name, Arena& arena);

// With or without padding (RFC 4648 §4). Nothing if the text is malformed.
std::optional<std::string_view> decode_base64(std::string_view text, Arena& arena);

struct NamePassword {
  std::string_view name, password;
};
// RFC 7617 §2: base64 of "name:password". Nothing if it is malformed.
std::optional<NamePassword> read_basic(std::string_view credentials, Arena& arena);

// Passwords that were right recently, as keyed hashes: checking a password costs a millisecond, and clients send it
// with each request. An entry is forgotten when another one takes its place. No password itself is stored. If a
// password is changed in the configuration, it has another hash, so the old one is not accepted any more. Threads: any.
class RightPasswords final : public Runtime {
 public:
  RightPasswords();
  bool has(std::string_view text) const;
  void add(std::string_view text);
  // True if one more password hash may be computed now. Their number is bounded: wrong passwords must not block a
  // worker.
  bool may_compute(uint64_t now_ns);

 private:
  std::atomic<uint64_t>& place_of(std::string_view text) const {
    return places_[siphash13(place_key_, text) % kRightPasswords];
  }
  const HashKey place_key_, key_;
  mutable std::array<std::atomic<uint64_t>, kRightPasswords> places_{};  // 0: empty
  tidegate::TokenBucket computed_;
};

enum class PasswordCheck : uint8_t { right, wrong, busy };

class Users {
 public:
  Users(std::shared_ptr<const KnownClients> users, Compiling& out);
  // `known`: the client that it names, if it is right.
  PasswordCheck check(const NamePassword& shown, uint64_t now_ns, Arena& arena, const Known*& known) const;

 private:
  std::shared_ptr<const KnownClients> users_;
  std::shared_ptr<RightPasswords> right_;
};

// Null if the key is not one of these (known_by_key).
const Known* find_by_key(const KnownClients& keys, std::string_view key);

}  // namespace tidegate::l7::policy
