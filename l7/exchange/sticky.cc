// SPDX-License-Identifier: Apache-2.0
#include "l7/exchange/sticky.h"

#include <fmt/format.h>

#include <charconv>

#include "core/crypto.h"
#include "core/http1.h"

namespace tidegate::l7 {
namespace {

constexpr uint64_t kStickyDayS = 86'400;
constexpr size_t kServerDigits = 16, kSignatureDigits = 32, kMostExpiryDigits = 12;

uint64_t server_id(const HashKey& key, const BackendPool& pool, const PoolMember& member) {
  return siphash13(key, fmt::format("sticky server {}/{}", pool.config().name, member.name));
}

// HMAC-SHA256, cut to 128 bits.
std::string sign(const HashKey& key, const BackendPool& pool, std::string_view claim) {
  const std::string_view secret(reinterpret_cast<const char*>(&key), sizeof key);
  const Sha256 signature = hmac_sha256(secret, fmt::format("sticky {} {}", pool.config().name, claim));
  return hex_encode({reinterpret_cast<const char*>(signature.data()), kSignatureDigits / 2});
}

std::optional<uint64_t> read_hex(std::string_view text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, 16);
  if (text.empty() || error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

}  // namespace

std::string_view cookie_of(std::string_view field, std::string_view name) {
  while (!field.empty()) {
    const size_t end = field.find(';');
    std::string_view pair = field.substr(0, end);
    field = end == std::string_view::npos ? std::string_view() : field.substr(end + 1);
    while (!pair.empty() && pair.front() == ' ') pair.remove_prefix(1);
    if (pair.size() > name.size() && pair.substr(0, name.size()) == name && pair[name.size()] == '=') {
      return pair.substr(name.size() + 1);
    }
  }
  return {};
}

std::string sticky_token(const HashKey& key, const BackendPool& pool, const PoolMember& member, uint64_t expiry_s) {
  const std::string claim = fmt::format("{:x}.{:016x}", expiry_s, server_id(key, pool, member));
  return claim + "." + sign(key, pool, claim);
}

const PoolMember* sticky_member(const HashKey& key, const BackendPool& pool, std::string_view token, uint64_t now_s) {
  const size_t dot = token.find('.');
  if (dot == std::string_view::npos || dot > kMostExpiryDigits) return nullptr;
  const size_t claim_bytes = dot + 1 + kServerDigits;
  if (token.size() != claim_bytes + 1 + kSignatureDigits || token[claim_bytes] != '.') return nullptr;
  const std::string_view claim = token.substr(0, claim_bytes);
  const std::optional<uint64_t> expiry_s = read_hex(claim.substr(0, dot)), server = read_hex(claim.substr(dot + 1));
  if (!expiry_s || !server || *expiry_s <= now_s) return nullptr;
  if (!equal_constant_time(token.substr(claim_bytes + 1), sign(key, pool, claim))) return nullptr;
  for (const PoolMember& member : pool.members()) {
    if (server_id(key, pool, member) == *server) return &member;
  }
  return nullptr;
}

std::string_view token_of_request(const PoolSticky& sticky, const RequestHead& request) {
  for (const Field& field : request.fields) {
    if (sticky.by == StickyBy::header) {
      if (http1::equals_ignore_case(field.name, sticky.name)) return field.value;
    } else if (http1::equals_ignore_case(field.name, "cookie")) {
      if (const std::string_view value = cookie_of(field.value, sticky.name); !value.empty()) return value;
    }
  }
  return {};
}

uint64_t sticky_seconds(const PoolSticky& sticky) {
  return sticky.ttl_ms == 0 ? kStickyDayS : (sticky.ttl_ms + 999) / 1'000;
}

std::string sticky_field(const PoolSticky& sticky, std::string_view token, bool secure) {
  if (sticky.by == StickyBy::header) return std::string(token);
  std::string out = fmt::format("{}={}; Path=/; HttpOnly; SameSite=Lax", sticky.name, token);
  if (sticky.ttl_ms != 0) out += fmt::format("; Max-Age={}", sticky_seconds(sticky));
  if (secure) out += "; Secure";
  return out;
}

}  // namespace tidegate::l7
