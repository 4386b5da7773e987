// SPDX-License-Identifier: Apache-2.0
// SigningKey: a P-256 key. It makes signatures, certificate requests and self-signed certificates.
//
// Threads: an object belongs to one thread.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/crypto.h"
#include "core/result.h"

namespace tidegate {

class SigningKey {
 public:
  static Result<SigningKey> make();
  // PKCS #8 or SEC 1, in PEM. An Error for any other kind of key.
  static Result<SigningKey> from_pem(const std::string& pem);
  SigningKey(SigningKey&&) noexcept;
  SigningKey& operator=(SigningKey&&) noexcept;
  ~SigningKey();

  Result<std::string> to_pem() const;  // PKCS #8
  // The coordinates of the public key, 32 bytes each.
  const std::string& x() const { return x_; }
  const std::string& y() const { return y_; }
  // ES256 (RFC 7518 §3.4): 64 bytes.
  Result<std::string> sign(std::string_view message) const;
  // A PKCS #10 request in DER for these DNS names. The first one that fits is its common name.
  Result<std::string> request_certificate(const std::vector<std::string>& names) const;

  struct SelfSigned {
    std::vector<std::string> names;  // DNS names, at least one
    int64_t not_before_s = 0, not_after_s = 0;
    std::optional<Sha256> acme_identifier;  // RFC 8737 §3: the critical extension with this digest
  };
  // A certificate that the key signs itself, in PEM.
  Result<std::string> certify_itself(const SelfSigned& wanted) const;

 private:
  struct Impl;
  explicit SigningKey(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
  std::string x_, y_;
};

}  // namespace tidegate
