// SPDX-License-Identifier: Apache-2.0
// CipherContext: OpenSSL's state of one cipher, freed with its owner.
#pragma once

#include <openssl/evp.h>

#include <memory>

namespace tidegate {

struct CipherContextDeleter {
  void operator()(EVP_CIPHER_CTX* context) const { EVP_CIPHER_CTX_free(context); }
};
using CipherContext = std::unique_ptr<EVP_CIPHER_CTX, CipherContextDeleter>;

}  // namespace tidegate
