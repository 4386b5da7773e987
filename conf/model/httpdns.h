// SPDX-License-Identifier: Apache-2.0
// The accounts of HTTPDNS: who may ask, and how often.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace tidegate {

struct HttpDnsAccount {
  std::string id;
  std::string secret;
  bool allow_unsigned = false;
  std::vector<std::string> other_secrets;  // accepted in addition to `secret`
  std::string aes_key;                     // hexadecimal; empty: no encrypted requests
  std::string des_key;                     // eight characters; empty: no requests sealed by DES
  std::vector<std::string> tokens;         // each alone gives access to /d
  uint64_t rate = 0;                       // host names per second on each name server; 0: no limit
  uint64_t burst = 10'000;
};

}  // namespace tidegate
