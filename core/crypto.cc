// SPDX-License-Identifier: Apache-2.0
#include "core/crypto.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/rand.h>

#include <array>
#include <cassert>
#include <cstring>
#include <memory>
#include <utility>

#include "core/assert.h"
#include "core/percent.h"
#include "core/sha256_stream.h"

namespace tidegate {
namespace {

std::string_view view(const Sha256& digest) { return {reinterpret_cast<const char*>(digest.data()), digest.size()}; }

std::string base64_with(std::string_view bytes, const char* alphabet, bool pad) {
  const size_t whole = bytes.size() / 3, rest = bytes.size() % 3;
  std::string out(whole * 4 + (rest == 0 ? 0 : pad ? 4 : rest + 1), '=');
  char* at = out.data();
  const auto byte = [&](size_t i) { return static_cast<uint32_t>(static_cast<uint8_t>(bytes[i])); };
  const auto digit = [&](uint32_t bits, int shift) { return alphabet[bits >> shift & 63]; };
  for (size_t i = 0; i < whole; ++i, at += 4) {
    const uint32_t bits = byte(3 * i) << 16 | byte(3 * i + 1) << 8 | byte(3 * i + 2);
    at[0] = digit(bits, 18);
    at[1] = digit(bits, 12);
    at[2] = digit(bits, 6);
    at[3] = digit(bits, 0);
  }
  if (rest == 0) return out;
  const uint32_t bits = byte(3 * whole) << 16 | (rest == 2 ? byte(3 * whole + 1) << 8 : 0);
  at[0] = digit(bits, 18);
  at[1] = digit(bits, 12);
  if (rest == 2) at[2] = digit(bits, 6);
  return out;
}

constexpr char kBase64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
constexpr char kBase64Url[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

// By character; 0xff: it is no digit.
constexpr std::array<uint8_t, 256> kBase64UrlDigits = [] {
  std::array<uint8_t, 256> digits{};
  for (uint8_t& digit : digits) digit = 0xff;
  for (size_t i = 0; kBase64Url[i] != '\0'; ++i) {
    digits[static_cast<uint8_t>(kBase64Url[i])] = static_cast<uint8_t>(i);
  }
  return digits;
}();

}  // namespace

namespace {

struct DigestContextDeleter {
  void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
};

// Fetched once, because OpenSSL 3 would look EVP_sha256() up by name each time. That costs more than hashing a short
// message.
const EVP_MD* fetched_sha256() {
  static const EVP_MD* const kSha256 = EVP_MD_fetch(nullptr, "SHA256", nullptr);
  return kSha256;
}

// The digest of two texts, one after the other. The context keeps what OpenSSL has allocated in it.
Sha256 sha256_of(std::string_view first, std::string_view second) {
  thread_local const std::unique_ptr<EVP_MD_CTX, DigestContextDeleter> kContext(EVP_MD_CTX_new());
  Sha256 digest{};
  bool ok = EVP_DigestInit_ex2(kContext.get(), fetched_sha256(), nullptr) == 1;
  ok = ok && EVP_DigestUpdate(kContext.get(), first.data(), first.size()) == 1;
  ok = ok && (second.empty() || EVP_DigestUpdate(kContext.get(), second.data(), second.size()) == 1);
  ok = ok && EVP_DigestFinal_ex(kContext.get(), digest.data(), nullptr) == 1;
  assert(ok);
  (void)ok;
  return digest;
}

}  // namespace

Sha256 sha256(std::string_view bytes) { return sha256_of(bytes, {}); }

Sha256Stream::Sha256Stream() : context_(EVP_MD_CTX_new()) {
  const bool began = EVP_DigestInit_ex2(static_cast<EVP_MD_CTX*>(context_), fetched_sha256(), nullptr) == 1;
  TIDEGATE_ASSERT(began, "OpenSSL begins a digest");
}

Sha256Stream::~Sha256Stream() { EVP_MD_CTX_free(static_cast<EVP_MD_CTX*>(context_)); }

void Sha256Stream::add(std::string_view bytes) {
  if (bytes.size() > waiting_.size() - held_) flush();
  if (bytes.size() > waiting_.size()) return hash(bytes);
  std::memcpy(waiting_.data() + held_, bytes.data(), bytes.size());
  held_ += bytes.size();
}

void Sha256Stream::flush() { hash({waiting_.data(), std::exchange(held_, 0)}); }

void Sha256Stream::hash(std::string_view bytes) {
  const bool hashed = EVP_DigestUpdate(static_cast<EVP_MD_CTX*>(context_), bytes.data(), bytes.size()) == 1;
  TIDEGATE_ASSERT(hashed, "OpenSSL goes on with a digest");
}

std::string Sha256Stream::hex() {
  flush();
  Sha256 digest{};
  const bool ended = EVP_DigestFinal_ex(static_cast<EVP_MD_CTX*>(context_), digest.data(), nullptr) == 1;
  TIDEGATE_ASSERT(ended, "OpenSSL ends a digest");
  return hex_encode(view(digest));
}

std::string sha256_hex(std::string_view bytes) { return hex_encode(view(sha256(bytes))); }

// RFC 2104 §2. OpenSSL's own function would look up four names for each message.
Sha256 hmac_sha256(std::string_view key, std::string_view message) {
  constexpr size_t kSha256BlockBytes = 64;
  std::array<char, kSha256BlockBytes> inner, outer;
  const Sha256 short_key = key.size() > kSha256BlockBytes ? sha256(key) : Sha256{};
  const std::string_view used = key.size() > kSha256BlockBytes ? view(short_key) : key;
  for (size_t i = 0; i < kSha256BlockBytes; ++i) {
    const char byte = i < used.size() ? used[i] : '\0';
    inner[i] = static_cast<char>(byte ^ 0x36);
    outer[i] = static_cast<char>(byte ^ 0x5c);
  }
  const Sha256 within = sha256_of({inner.data(), inner.size()}, message);
  return sha256_of({outer.data(), outer.size()}, view(within));
}

std::string md5_hex(std::string_view bytes) {
  static const EVP_MD* const kMd5 = EVP_MD_fetch(nullptr, "MD5", nullptr);
  unsigned char digest[16];
  const int ok = EVP_Digest(bytes.data(), bytes.size(), digest, nullptr, kMd5, nullptr);
  assert(ok == 1);
  (void)ok;
  return hex_encode({reinterpret_cast<const char*>(digest), sizeof digest});
}

std::string hkdf_sha256(std::string_view secret, std::string_view info, size_t bytes) {
  // RFC 5869 §2.2 (extract with a zero salt), §2.3 (expand).
  assert(bytes <= 255 * sizeof(Sha256));
  const Sha256 zero_salt{};
  const Sha256 prk = hmac_sha256(view(zero_salt), secret);
  std::string out, block;
  for (uint8_t counter = 1; out.size() < bytes; ++counter) {
    block += info;
    block.push_back(static_cast<char>(counter));
    const Sha256 next = hmac_sha256(view(prk), block);
    block.assign(view(next));
    out += block;
  }
  out.resize(bytes);
  return out;
}

HashKey derive_hash_key(std::string_view secret, std::string_view purpose) {
  const std::string bytes = hkdf_sha256(secret, purpose, sizeof(HashKey));
  HashKey key;
  std::memcpy(&key, bytes.data(), sizeof key);
  return key;
}

std::string random_bytes(size_t bytes) {
  std::string out(bytes, '\0');
  const int ok = RAND_bytes(reinterpret_cast<unsigned char*>(out.data()), static_cast<int>(bytes));
  assert(ok == 1);
  (void)ok;
  return out;
}

HashKey random_hash_key() {
  HashKey key;
  const std::string random = random_bytes(sizeof key);
  std::memcpy(&key, random.data(), sizeof key);
  return key;
}

std::string hex_encode(std::string_view bytes) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string out(bytes.size() * 2, '0');
  for (size_t i = 0; i < bytes.size(); ++i) {
    const auto value = static_cast<uint8_t>(bytes[i]);
    out[2 * i] = kDigits[value >> 4];
    out[2 * i + 1] = kDigits[value & 15];
  }
  return out;
}

std::optional<std::string> hex_decode(std::string_view hex) {
  if (hex.size() % 2 != 0) return std::nullopt;
  static constexpr auto kValues = [] {
    std::array<int8_t, 256> values{};
    for (size_t c = 0; c < values.size(); ++c) values[c] = static_cast<int8_t>(hex_digit(static_cast<char>(c)));
    return values;
  }();
  const auto value_of = [](char c) { return int{kValues[static_cast<uint8_t>(c)]}; };
  std::string out(hex.size() / 2, '\0');
  int wrong = 0;  // negative once a character is not in the alphabet
  for (size_t i = 0; i < out.size(); ++i) {
    const int high = value_of(hex[2 * i]), low = value_of(hex[2 * i + 1]);
    wrong |= high | low;
    out[i] = static_cast<char>(static_cast<uint8_t>(high << 4 | (low & 15)));
  }
  if (wrong < 0) return std::nullopt;
  return out;
}

std::string base64url_encode(std::string_view bytes) { return base64_with(bytes, kBase64Url, false); }
std::string base64_encode(std::string_view bytes) { return base64_with(bytes, kBase64, true); }

std::optional<std::string> base64url_decode(std::string_view text) {
  std::string out(text.size() * 3 / 4, '\0');
  const std::optional<size_t> bytes = base64url_decode_to(text, out.data());
  if (!bytes) return std::nullopt;
  TIDEGATE_ASSERT(*bytes == out.size(), "whole base64 without padding has this length");
  return out;
}

std::optional<size_t> base64url_decode_to(std::string_view text, char* const out) {
  const size_t rest = text.size() % 4;
  if (rest == 1) return std::nullopt;  // a canonical encoding has no leftover character
  char* end = out;
  const auto digit = [](char c) -> uint32_t { return kBase64UrlDigits[static_cast<uint8_t>(c)]; };
  uint32_t seen = 0;  // all digits together: what is none has a bit above the six
  for (; text.size() >= 4; text.remove_prefix(4)) {
    const uint32_t a = digit(text[0]), b = digit(text[1]), c = digit(text[2]), d = digit(text[3]);
    seen |= a | b | c | d;
    *end++ = static_cast<char>(a << 2 | b >> 4);
    *end++ = static_cast<char>(b << 4 | c >> 2);
    *end++ = static_cast<char>(c << 6 | d);
  }
  if (rest != 0) {
    const uint32_t a = digit(text[0]), b = digit(text[1]), c = rest == 3 ? digit(text[2]) : 0;
    seen |= a | b | c;
    if ((rest == 3 ? c & 3 : b & 15) != 0) return std::nullopt;  // and no set leftover bits
    *end++ = static_cast<char>(a << 2 | b >> 4);
    if (rest == 3) *end++ = static_cast<char>(b << 4 | c >> 2);
  }
  return seen > 63 ? std::nullopt : std::optional(static_cast<size_t>(end - out));
}

bool equal_constant_time(std::string_view a, std::string_view b) {
  return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

}  // namespace tidegate
