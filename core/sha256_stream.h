// SPDX-License-Identifier: Apache-2.0
// Sha256Stream: the digest of bytes that come in small pieces and are never held together.
#pragma once

#include <array>
#include <cstddef>
#include <string>
#include <string_view>

namespace tidegate {

class Sha256Stream {
 public:
  Sha256Stream();
  ~Sha256Stream();
  Sha256Stream(const Sha256Stream&) = delete;
  Sha256Stream& operator=(const Sha256Stream&) = delete;

  void add(std::string_view bytes);
  // The digest of all that was added, 64 hexadecimal digits. Nothing may be added afterwards.
  std::string hex();

 private:
  void flush();
  void hash(std::string_view bytes);

  void* context_;                   // EVP_MD_CTX, owned
  std::array<char, 2048> waiting_;  // small pieces, hashed together
  size_t held_ = 0;
};

}  // namespace tidegate
