// SPDX-License-Identifier: Apache-2.0
// CertificateNames: finds the client of a TLS certificate (`certificates` of the authenticate policy).
//
// Threads: any; immutable.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "conf/policy/authenticate.h"
#include "core/tls_clients.h"
#include "l7/plan/known_clients.h"

namespace tidegate::l7 {

class CertificateNames {
 public:
  explicit CertificateNames(const CertificateClients& rules);

  enum class Outcome : uint8_t { known, nameless, unknown };
  struct Found {
    Outcome outcome;
    std::string_view name = {};    // name in `certificate`
    const Known* known = nullptr;  // null: without roles
  };
  Found find(const PeerCertificate& certificate) const;

 private:
  const std::string PeerCertificate::*name_from_;
  bool everybody_;                                   // no client is listed, so every certificate is accepted
  std::map<std::string, Known, std::less<>> exact_;  // the views are of the nodes' texts, which do not move
  std::map<std::string, Known, std::less<>> below_;  // "spiffe://example.org/billing/"
};

}  // namespace tidegate::l7
