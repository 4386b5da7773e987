// SPDX-License-Identifier: Apache-2.0
// OwnCertificates: what the proxy signs itself. For an ordered certificate that is not issued yet it makes one, and it
// makes the identities that prove a name to an authority (tls-alpn-01). Each needs a key of its own. So this is not
// part of describe(), which is pure: a Description says what is needed, and complete() adds it.
//
// What was made is kept while the Description in force needs it. So one order has one certificate, however often it is
// described. Main thread.
#pragma once

#include <map>
#include <string>

#include "l7/plan/certificates.h"
#include "l7/plan/description.h"

namespace tidegate::l7 {

class OwnCertificates {
 public:
  // Makes what the Description needs and does not have. Logs what is shown instead of a certificate that was issued.
  void complete(Description& description);
  // Forgets what this Description, which came into force, does not need.
  void trim(const Description& in_force);
  size_t size() const { return made_.size() + proofs_.size(); }

 private:
  void complete(const Certificate& certificate, ServedCertificate& served);

  // By name of the certificate and the names in it; by proof.
  std::map<std::string, ServedCertificate> made_;
  std::map<std::string, TlsIdentity> proofs_;
  std::map<std::string, std::string> troubles_;  // by name of the certificate: what was logged last
};

}  // namespace tidegate::l7
