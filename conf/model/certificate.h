// SPDX-License-Identifier: Apache-2.0
// Certificates, from files or from an authority by ACME.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "conf/model/common.h"

namespace tidegate {

enum class AcmeChallenge : uint8_t { http01, tls_alpn01, dns01 };

// A certificate that control gets from the authority of the section `acme` (RFC 8555).
struct CertificateOrder {
  std::vector<std::string> names;  // lower case, without the final dot; "*.example.com" for all names below
  AcmeChallenge challenge = AcmeChallenge::http01;
};

// The rules for stapling the authority's OCSP answer to a certificate.
struct CertificateOcsp {
  bool enabled = false;
  std::string responder;  // its URL; empty: the one that the certificate names
};

struct Certificate {
  std::string name;
  Blob certificate;        // PEM chain; none if it comes from an authority
  Blob key;                // PEM
  CertificateOrder order;  // no names: it comes from files
  CertificateOcsp ocsp;

  bool is_ordered() const { return !order.names.empty(); }
};

}  // namespace tidegate
