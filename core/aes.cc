// SPDX-License-Identifier: Apache-2.0
#include "core/aes.h"

#include <openssl/evp.h>

#include <cassert>
#include <memory>

#include "core/crypto.h"

namespace tidegate {
namespace {

constexpr size_t kTagBytes = 16, kBlockBytes = 16;

struct ContextDeleter {
  void operator()(EVP_CIPHER_CTX* context) const { EVP_CIPHER_CTX_free(context); }
};
using Context = std::unique_ptr<EVP_CIPHER_CTX, ContextDeleter>;

size_t iv_bytes(AesMode mode) { return mode == AesMode::cbc ? 16 : 12; }

// Fetched once, because OpenSSL 3 would look them up by name each time.
const EVP_CIPHER* cipher_of(AesMode mode) {
  static const EVP_CIPHER* const kCbc = EVP_CIPHER_fetch(nullptr, "AES-128-CBC", nullptr);
  static const EVP_CIPHER* const kGcm = EVP_CIPHER_fetch(nullptr, "AES-128-GCM", nullptr);
  return mode == AesMode::cbc ? kCbc : kGcm;
}

const unsigned char* bytes_of(std::string_view text) { return reinterpret_cast<const unsigned char*>(text.data()); }
unsigned char* bytes_of(std::string& text, size_t at) { return reinterpret_cast<unsigned char*>(text.data()) + at; }

}  // namespace

std::string aes128_seal(AesMode mode, std::string_view key, std::string_view plain) {
  assert(key.size() == kAes128KeyBytes);
  std::string sealed = random_bytes(iv_bytes(mode));
  const size_t start = sealed.size();
  sealed.resize(start + plain.size() + kBlockBytes);
  const Context context(EVP_CIPHER_CTX_new());
  int written = 0, last = 0;
  bool ok = EVP_EncryptInit_ex2(context.get(), cipher_of(mode), bytes_of(key), bytes_of(sealed, 0), nullptr) == 1;
  ok = ok && EVP_EncryptUpdate(context.get(), bytes_of(sealed, start), &written, bytes_of(plain),
                               static_cast<int>(plain.size())) == 1;
  ok = ok && EVP_EncryptFinal_ex(context.get(), bytes_of(sealed, start + static_cast<size_t>(written)), &last) == 1;
  sealed.resize(start + static_cast<size_t>(written + last));
  if (mode == AesMode::gcm) {
    sealed.resize(sealed.size() + kTagBytes);
    ok = ok && EVP_CIPHER_CTX_ctrl(context.get(), EVP_CTRL_AEAD_GET_TAG, kTagBytes,
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
  std::string plain(body.size() + kBlockBytes, '\0');
  const Context context(EVP_CIPHER_CTX_new());
  int written = 0, last = 0;
  if (EVP_DecryptInit_ex2(context.get(), cipher_of(mode), bytes_of(key), bytes_of(iv), nullptr) != 1 ||
      EVP_DecryptUpdate(context.get(), bytes_of(plain, 0), &written, bytes_of(body), static_cast<int>(body.size())) !=
          1) {
    return std::nullopt;
  }
  if (tag_bytes != 0 && EVP_CIPHER_CTX_ctrl(context.get(), EVP_CTRL_AEAD_SET_TAG, kTagBytes, bytes_of(tag, 0)) != 1) {
    return std::nullopt;
  }
  if (EVP_DecryptFinal_ex(context.get(), bytes_of(plain, static_cast<size_t>(written)), &last) != 1)
    return std::nullopt;
  plain.resize(static_cast<size_t>(written + last));
  return plain;
}

}  // namespace tidegate
