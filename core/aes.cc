// SPDX-License-Identifier: Apache-2.0
#include "core/aes.h"

#include <openssl/evp.h>

#include <cassert>
#include <memory>

#include "core/cipher_context.h"
#include "core/crypto.h"

namespace tidegate {
namespace {

constexpr size_t kTagBytes = 16, kAesBlockBytes = 16;

size_t iv_bytes(AesMode mode) { return mode == AesMode::cbc ? 16 : 12; }

// Fetched once, because OpenSSL 3 would look them up by name each time.
const EVP_CIPHER* cipher_of(AesMode mode) {
  static const EVP_CIPHER* const kCbc = EVP_CIPHER_fetch(nullptr, "AES-128-CBC", nullptr);
  static const EVP_CIPHER* const kGcm = EVP_CIPHER_fetch(nullptr, "AES-128-GCM", nullptr);
  return mode == AesMode::cbc ? kCbc : kGcm;
}

const unsigned char* bytes_of(std::string_view text) { return reinterpret_cast<const unsigned char*>(text.data()); }
unsigned char* bytes_of(std::string& text, size_t at) { return reinterpret_cast<unsigned char*>(text.data()) + at; }

enum class Direction : uint8_t { seal, open };

// One for each use and thread: OpenSSL keeps what it has allocated while the cipher stays the same, and its tables
// while the key does.
struct Keyed {
  CipherContext context{EVP_CIPHER_CTX_new()};
  std::string key;  // the key that the context holds
};

// A context with this key and IV; null if OpenSSL refuses.
EVP_CIPHER_CTX* context_for(AesMode mode, Direction direction, std::string_view key, const unsigned char* iv) {
  thread_local Keyed all[2][2];
  Keyed& keyed = all[mode == AesMode::cbc ? 0 : 1][static_cast<size_t>(direction)];
  const bool same_key = keyed.key == key;
  const int ok =
      EVP_CipherInit_ex2(keyed.context.get(), same_key ? nullptr : cipher_of(mode), same_key ? nullptr : bytes_of(key),
                         iv, direction == Direction::seal ? 1 : 0, nullptr);
  keyed.key.assign(ok == 1 ? key : std::string_view());
  return ok == 1 ? keyed.context.get() : nullptr;
}

// Taken from a supply of the thread, because the generator takes as long for twelve bytes as for hundreds. No byte is
// used twice.
std::string fresh_iv(size_t bytes) {
  constexpr size_t kSupply = 384;
  thread_local std::string supply;
  if (supply.size() < bytes) supply = random_bytes(kSupply);
  std::string iv = supply.substr(supply.size() - bytes);
  supply.resize(supply.size() - bytes);
  return iv;
}

}  // namespace

std::string aes128_seal(AesMode mode, std::string_view key, std::string_view plain) {
  assert(key.size() == kAes128KeyBytes);
  std::string sealed = fresh_iv(iv_bytes(mode));
  const size_t start = sealed.size();
  sealed.resize(start + plain.size() + kAesBlockBytes);
  EVP_CIPHER_CTX* const context = context_for(mode, Direction::seal, key, bytes_of(sealed, 0));
  int written = 0, last = 0;
  bool ok = context != nullptr;
  ok = ok && EVP_EncryptUpdate(context, bytes_of(sealed, start), &written, bytes_of(plain),
                               static_cast<int>(plain.size())) == 1;
  ok = ok && EVP_EncryptFinal_ex(context, bytes_of(sealed, start + static_cast<size_t>(written)), &last) == 1;
  sealed.resize(start + static_cast<size_t>(written + last));
  if (mode == AesMode::gcm) {
    sealed.resize(sealed.size() + kTagBytes);
    ok = ok && EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, kTagBytes,
                                   bytes_of(sealed, sealed.size() - kTagBytes)) == 1;
  }
  assert(ok);
  (void)ok;
  return sealed;
}

std::optional<std::string> aes128_open(AesMode mode, std::string_view key, std::string_view sealed) {
  assert(key.size() == kAes128KeyBytes);
  const size_t tag_bytes = mode == AesMode::gcm ? kTagBytes : 0;
  if (sealed.size() < iv_bytes(mode) + tag_bytes) return std::nullopt;
  const std::string_view iv = sealed.substr(0, iv_bytes(mode));
  std::string tag(sealed.substr(sealed.size() - tag_bytes));
  const std::string_view body = sealed.substr(iv.size(), sealed.size() - iv.size() - tag_bytes);
  std::string plain(body.size() + kAesBlockBytes, '\0');
  EVP_CIPHER_CTX* const context = context_for(mode, Direction::open, key, bytes_of(iv));
  int written = 0, last = 0;
  if (context == nullptr ||
      EVP_DecryptUpdate(context, bytes_of(plain, 0), &written, bytes_of(body), static_cast<int>(body.size())) != 1) {
    return std::nullopt;
  }
  if (tag_bytes != 0 && EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_SET_TAG, kTagBytes, bytes_of(tag, 0)) != 1) {
    return std::nullopt;
  }
  if (EVP_DecryptFinal_ex(context, bytes_of(plain, static_cast<size_t>(written)), &last) != 1) return std::nullopt;
  plain.resize(static_cast<size_t>(written + last));
  return plain;
}

}  // namespace tidegate
