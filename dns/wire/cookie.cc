// SPDX-License-Identifier: Apache-2.0
#include "dns/wire/cookie.h"

namespace tidegate::dns {
namespace {

constexpr uint8_t kVersion = 1;
constexpr size_t kHashAt = 8;  // after version, three reserved bytes and the timestamp
constexpr int32_t kMaxAgeS = 3'600;
constexpr int32_t kMaxAheadS = 300;

uint64_t cookie_hash(const HashKey& secret, std::span<const uint8_t> client_cookie, std::span<const uint8_t> head,
                     const IpAddress& client) {
  std::array<uint8_t, kClientCookieBytes + kHashAt + 16> input;
  std::memcpy(input.data(), client_cookie.data(), kClientCookieBytes);
  std::memcpy(input.data() + kClientCookieBytes, head.data(), kHashAt);
  std::memcpy(input.data() + kClientCookieBytes + kHashAt, client.bytes.data(), client.size());
  return siphash24(secret, {input.data(), kClientCookieBytes + kHashAt + client.size()});
}

}  // namespace

uint64_t siphash24(const HashKey& key, std::span<const uint8_t> data) {
  tidegate::detail::SipState state(key);
  const auto absorb = [&](uint64_t word) {
    state.v3 ^= word;
    state.round();
    state.round();
    state.v0 ^= word;
  };
  const size_t whole = data.size() & ~size_t{7};
  for (size_t i = 0; i < whole; i += 8) {
    uint64_t word;
    std::memcpy(&word, data.data() + i, 8);
    absorb(word);
  }
  uint64_t last = static_cast<uint64_t>(data.size()) << 56;
  for (size_t i = whole; i < data.size(); ++i) last |= static_cast<uint64_t>(data[i]) << (8 * (i - whole));
  absorb(last);
  state.v2 ^= 0xff;
  for (int i = 0; i < 4; ++i) state.round();
  return state.v0 ^ state.v1 ^ state.v2 ^ state.v3;
}

std::array<uint8_t, kServerCookieBytes> make_server_cookie(const HashKey& secret,
                                                           std::span<const uint8_t, kClientCookieBytes> client_cookie,
                                                           const IpAddress& client, uint32_t now_s) {
  std::array<uint8_t, kServerCookieBytes> cookie{};
  cookie[0] = kVersion;
  store_u32(&cookie[4], now_s);
  const uint64_t hash = cookie_hash(secret, client_cookie, cookie, client);
  std::memcpy(&cookie[kHashAt], &hash, sizeof hash);  // little-endian, as SipHash gives it
  return cookie;
}

bool verify_server_cookie(const HashKey& secret, const Edns& edns, const IpAddress& client, uint32_t now_s) {
  if (edns.server_cookie_bytes != kServerCookieBytes || edns.server_cookie[0] != kVersion) return false;
  const auto age_s = static_cast<int32_t>(now_s - load_u32(&edns.server_cookie[4]));
  if (age_s > kMaxAgeS || age_s < -kMaxAheadS) return false;
  const uint64_t hash = cookie_hash(secret, edns.client_cookie, edns.server_cookie, client);
  return std::memcmp(&hash, &edns.server_cookie[kHashAt], sizeof hash) == 0;
}

}  // namespace tidegate::dns
