// SPDX-License-Identifier: Apache-2.0
// The authority from which control gets certificates.
#pragma once

#include <string>
#include <vector>

#include "conf/model/common.h"

namespace tidegate {

struct Acme {
  std::string directory;             // its URL; empty: no certificate is ordered
  std::vector<std::string> contact;  // "mailto:ops@example.com"
  bool terms_agreed = false;
  // PEM roots that must have signed the authority's own certificate; none: the system's
  Blob ca;
  std::string eab_key_id, eab_key;  // RFC 8555 §7.3.4; the key is base64url
};

}  // namespace tidegate
