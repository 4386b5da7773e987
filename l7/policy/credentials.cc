// SPDX-License-Identifier: Apache-2.0
#include "l7/policy/credentials.h"

#include <crypt.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>

#include "core/crypto.h"
#include "core/http1.h"
#include "core/percent.h"
#include "l7/exchange/sticky.h"
#include "l7/limits.h"
#include "l7/policy/template_text.h"

namespace tidegate::l7::policy {
namespace {

// Whether the password is right, for a hash that is_password_hash() has accepted. Computes for some milliseconds.
bool matches(const std::string& hash, std::string_view password) {
  thread_local const auto scratch = std::make_unique<crypt_data>();
  const std::string phrase(password);
  const char* const computed = ::crypt_rn(phrase.c_str(), hash.c_str(), scratch.get(), sizeof(crypt_data));
  const bool right = computed != nullptr && equal_constant_time(computed, hash);
  std::memset(scratch.get(), 0, sizeof(crypt_data));
  return right;
}

// The bytes of a query's value, decoded one by one. A malformed escape stays as it is written.
class DecodedBytes {
 public:
  explicit DecodedBytes(std::string_view written) : rest_(written) {}
  // Nothing at the end.
  std::optional<char> next() {
    if (rest_.empty()) return std::nullopt;
    char c = rest_[0];
    size_t taken = 1;
    if (c == '+') c = ' ';
    if (c == '%') {
      const int high = rest_.size() > 2 ? hex_digit(rest_[1]) : -1, low = rest_.size() > 2 ? hex_digit(rest_[2]) : -1;
      malformed_ = malformed_ || high < 0 || low < 0;
      if (high >= 0 && low >= 0) {
        c = static_cast<char>(high << 4 | low);
        taken = 3;
      }
    }
    rest_.remove_prefix(taken);
    return c;
  }
  bool malformed() const { return malformed_; }  // so far

 private:
  std::string_view rest_;
  bool malformed_ = false;
};

bool is_same_decoded(std::string_view one, std::string_view other) {
  DecodedBytes left(one), right(other);
  for (;;) {
    const std::optional<char> a = left.next(), b = right.next();
    if (a != b) return false;
    if (!a) return true;
  }
}

// The value of the first parameter of that name, as it is written. It and what stands before it are taken off the
// query.
std::optional<std::string_view> next_parameter(std::string_view& query, std::string_view name) {
  while (!query.empty()) {
    const std::string_view pair = query.substr(0, query.find('&'));
    query.remove_prefix(std::min(pair.size() + 1, query.size()));
    const size_t equals = std::min(pair.find('='), pair.size());
    if (is_parameter_named(pair.substr(0, equals), name)) return pair.substr(std::min(equals + 1, pair.size()));
  }
  return std::nullopt;
}

}  // namespace

std::optional<std::string_view> authorization_of(const RequestHead& request, std::string_view scheme) {
  const Field* const field = request.fields.find("authorization");
  if (field == nullptr) return std::nullopt;
  std::string_view value = field->value;
  if (value.size() <= scheme.size() || value[scheme.size()] != ' ' ||
      !http1::equals_ignore_case(value.substr(0, scheme.size()), scheme)) {
    return std::nullopt;
  }
  value.remove_prefix(scheme.size() + 1);
  while (!value.empty() && value.front() == ' ') value.remove_prefix(1);
  return value;
}

bool fields_differ(const RequestHead& request, std::string_view lower) {
  const Field* first = nullptr;
  for (const Field& field : request.fields) {
    if (field.name != lower) continue;
    if (first != nullptr && field.value != first->value) return true;
    if (first == nullptr) first = &field;
  }
  return false;
}

bool cookies_differ(const RequestHead& request, std::string_view name) {
  std::optional<std::string_view> first;
  for (const Field& field : request.fields) {
    if (field.kind != FieldKind::cookie) continue;
    for (std::string_view rest = field.value; !rest.empty();) {
      std::string_view pair = rest.substr(0, rest.find(';'));
      rest.remove_prefix(std::min(pair.size() + 1, rest.size()));
      pair.remove_prefix(std::min(pair.find_first_not_of(' '), pair.size()));
      const size_t equals = pair.find('=');
      if (equals == std::string_view::npos || pair.substr(0, equals) != name) continue;
      const std::string_view value = pair.substr(equals + 1);
      if (first && *first != value) return true;
      first = value;
    }
  }
  return false;
}

bool parameters_differ(std::string_view query, std::string_view name) {
  const std::optional<std::string_view> first = next_parameter(query, name);
  if (!first) return false;
  while (const std::optional<std::string_view> other = next_parameter(query, name)) {
    if (!is_same_decoded(*first, *other)) return true;
  }
  return false;
}

bool has_parameter(std::string_view query, std::string_view name) { return next_parameter(query, name).has_value(); }

std::optional<std::string_view> parameter_of(std::string_view query, std::string_view name, Arena& arena) {
  const std::optional<std::string_view> written = next_parameter(query, name);
  if (!written || written->find_first_of("%+") == std::string_view::npos) return written;
  char* const begin = arena.allocate(written->size());
  char* end = begin;
  for (DecodedBytes bytes(*written); const std::optional<char> byte = bytes.next();) {
    if (bytes.malformed()) return std::nullopt;
    *end++ = *byte;
  }
  return std::string_view(begin, static_cast<size_t>(end - begin));
}

void remove_cookie(FieldList& fields, std::string_view name, Arena& arena) {
  fields.change_each([&](Field& field) {
    if (field.kind != FieldKind::cookie || cookie_of(field.value, name).empty()) return true;
    char* const begin = arena.allocate(field.value.size());
    char* end = begin;
    for (std::string_view rest = field.value; !rest.empty();) {
      std::string_view pair = rest.substr(0, rest.find(';'));
      rest.remove_prefix(std::min(pair.size() + 1, rest.size()));
      pair.remove_prefix(std::min(pair.find_first_not_of(' '), pair.size()));
      if (pair.empty() || pair.substr(0, pair.find('=')) == name) continue;
      if (end != begin) end = std::copy_n("; ", 2, end);
      end = std::copy(pair.begin(), pair.end(), end);
    }
    field.value = {begin, static_cast<size_t>(end - begin)};
    return end != begin;
  });
}

std::string_view query_without(std::string_view query, std::string_view name, Arena& arena) {
  char* const begin = arena.allocate(query.size());
  char* end = begin;
  bool first = true;
  while (!query.empty()) {
    const std::string_view pair = query.substr(0, query.find('&'));
    query.remove_prefix(std::min(pair.size() + 1, query.size()));
    if (is_parameter_named(pair.substr(0, pair.find('=')), name)) continue;
    if (!std::exchange(first, false)) *end++ = '&';
    end = std::copy(pair.begin(), pair.end(), end);
  }
  return {begin, static_cast<size_t>(end - begin)};
}

std::optional<std::string_view> decode_base64(std::string_view text, Arena& arena) {
  while (!text.empty() && text.back() == '=') text.remove_suffix(1);
  char* const out = arena.allocate(text.size());
  std::transform(text.begin(), text.end(), out, [](char c) { return c == '+' ? '-' : c == '/' ? '_' : c; });
  const std::optional<size_t> bytes = base64url_decode_to({out, text.size()}, out);
  return bytes ? std::optional(std::string_view(out, *bytes)) : std::nullopt;
}

std::optional<NamePassword> read_basic(std::string_view credentials, Arena& arena) {
  const std::optional<std::string_view> plain = decode_base64(credentials, arena);
  if (!plain) return std::nullopt;
  const std::string_view kept = *plain;
  const size_t colon = kept.find(':');
  if (colon == std::string_view::npos || kept.find('\0') != std::string_view::npos) return std::nullopt;
  return NamePassword{kept.substr(0, colon), kept.substr(colon + 1)};
}

RightPasswords::RightPasswords() : place_key_(random_hash_key()), key_(random_hash_key()) {}

bool RightPasswords::has(std::string_view text) const {
  const uint64_t wanted = siphash13(key_, text);
  return wanted != 0 && place_of(text).load(std::memory_order_relaxed) == wanted;
}

void RightPasswords::add(std::string_view text) {
  place_of(text).store(siphash13(key_, text), std::memory_order_relaxed);
}

bool RightPasswords::may_compute(uint64_t now_ns) {
  return computed_.take(TokenRate::per_second(kPasswordsPerSecond, kPasswordsPerSecond), 1, now_ns);
}

Users::Users(std::shared_ptr<const KnownClients> users, Compiling& out)
    : users_(std::move(users)),
      right_(out.registry.get<RightPasswords>(fmt::format("{}/authenticate/passwords", out.policy))) {}

PasswordCheck Users::check(const NamePassword& shown, uint64_t now_ns, Arena& arena, const Known*& known) const {
  if (shown.password.size() > kPasswordBytes) return PasswordCheck::wrong;
  const auto found = users_->find(shown.name);
  // An unknown name costs as much as a known one, so that nobody can find names by the time.
  const Known& user = found == users_->end() ? users_->begin()->second : found->second;
  const size_t bytes = shown.name.size() + user.hash.size() + shown.password.size() + 2;
  char* const text = arena.allocate(bytes);
  char* end = std::copy(shown.name.begin(), shown.name.end(), text);
  *end++ = '\0';
  end = std::copy(user.hash.begin(), user.hash.end(), end);
  *end++ = '\0';
  std::copy(shown.password.begin(), shown.password.end(), end);
  const std::string_view whole(text, bytes);
  if (found == users_->end() || !right_->has(whole)) {
    if (!right_->may_compute(now_ns)) return PasswordCheck::busy;
    if (!matches(user.hash, shown.password) || found == users_->end()) return PasswordCheck::wrong;
    right_->add(whole);
  }
  known = &user;
  return PasswordCheck::right;
}

// Looked up by the hash of the sent key, so the time reveals nothing about the keys.
const Known* find_by_key(const KnownClients& keys, std::string_view key) {
  const Sha256 hash = sha256(key);
  const auto found = keys.find(std::string_view(reinterpret_cast<const char*>(hash.data()), hash.size()));
  return found == keys.end() ? nullptr : &found->second;
}

}  // namespace tidegate::l7::policy
