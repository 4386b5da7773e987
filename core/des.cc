// SPDX-License-Identifier: Apache-2.0
#include "core/des.h"

#include <openssl/evp.h>

#include "core/assert.h"
#include "core/cipher_context.h"

namespace tidegate {
namespace {

constexpr size_t kDesBlockBytes = 8;

enum class Way : int { open = 0, seal = 1 };

// OpenSSL 3 keeps single DES in its legacy provider. Triple DES with one key three times is the same function
// (NIST SP 800-67 §3.2), and the default provider has it.
std::optional<std::string> run(Way way, std::string_view key, std::string_view in) {
  TIDEGATE_ASSERT(key.size() == kDesKeyBytes, "a DES key has eight bytes");
  static const EVP_CIPHER* const kCipher = EVP_CIPHER_fetch(nullptr, "DES-EDE3-ECB", nullptr);
  std::string three_keys;
  for (int i = 0; i < 3; ++i) three_keys += key;
  const CipherContext context(EVP_CIPHER_CTX_new());
  std::string out(in.size() + kDesBlockBytes, '\0');
  auto* const to = reinterpret_cast<unsigned char*>(out.data());
  const auto bytes = [](std::string_view text) { return reinterpret_cast<const unsigned char*>(text.data()); };
  int written = 0, last = 0;
  const bool held =
      EVP_CipherInit_ex2(context.get(), kCipher, bytes(three_keys), nullptr, static_cast<int>(way), nullptr) == 1 &&
      EVP_CipherUpdate(context.get(), to, &written, bytes(in), static_cast<int>(in.size())) == 1 &&
      EVP_CipherFinal_ex(context.get(), to + written, &last) == 1;
  if (!held) return std::nullopt;
  out.resize(static_cast<size_t>(written + last));
  return out;
}

}  // namespace

std::string des_seal(std::string_view key, std::string_view plain) {
  auto sealed = run(Way::seal, key, plain);
  TIDEGATE_ASSERT(sealed.has_value(), "sealing by DES cannot fail");
  return *std::move(sealed);
}

std::optional<std::string> des_open(std::string_view key, std::string_view sealed) {
  return run(Way::open, key, sealed);
}

}  // namespace tidegate
