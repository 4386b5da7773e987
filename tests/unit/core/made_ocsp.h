// SPDX-License-Identifier: Apache-2.0
// OCSP answers that tests make for themselves.
#pragma once

#include <openssl/ocsp.h>

#include <ctime>
#include <string>

#include "core/tls_openssl.h"
#include "tests/unit/core/made_authority.h"

namespace tidegate {

struct OcspTerms {
  int status = V_OCSP_CERTSTATUS_GOOD;
  long begins_in_s = -60, ends_in_s = 3600;  // from now
  bool has_end = true;
};

// The DER answer of `signer` about the first certificate of the chain, which the second one issued.
inline std::string make_ocsp_answer(const TlsIdentity& signer, const std::string& chain_pem,
                                    const OcspTerms& terms = {}) {
  const X509StackPtr chain = parse_certificates(chain_pem).value();
  const LoadedIdentity by = load_identity(signer).value();
  OCSP_BASICRESP* const basic = OCSP_BASICRESP_new();
  OCSP_CERTID* const id = OCSP_cert_to_id(EVP_sha1(), sk_X509_value(chain.get(), 0), sk_X509_value(chain.get(), 1));
  ASN1_TIME* const begin = X509_gmtime_adj(nullptr, terms.begins_in_s);
  ASN1_TIME* const end = terms.has_end ? X509_gmtime_adj(nullptr, terms.ends_in_s) : nullptr;
  const bool revoked = terms.status == V_OCSP_CERTSTATUS_REVOKED;
  ASN1_GENERALIZEDTIME* const begins = ASN1_TIME_to_generalizedtime(begin, nullptr);
  ASN1_GENERALIZEDTIME* const ends = end == nullptr ? nullptr : ASN1_TIME_to_generalizedtime(end, nullptr);
  OCSP_basic_add1_status(basic, id, terms.status, OCSP_REVOKED_STATUS_KEYCOMPROMISE, revoked ? begins : nullptr, begins,
                         ends);
  OCSP_basic_sign(basic, by.certificate.get(), by.key.get(), EVP_sha256(), nullptr, 0);
  OCSP_RESPONSE* const response = OCSP_response_create(OCSP_RESPONSE_STATUS_SUCCESSFUL, basic);
  unsigned char* der = nullptr;
  const int bytes = i2d_OCSP_RESPONSE(response, &der);
  std::string answer(reinterpret_cast<char*>(der), static_cast<size_t>(bytes));
  OPENSSL_free(der);
  OCSP_RESPONSE_free(response);
  OCSP_BASICRESP_free(basic);
  OCSP_CERTID_free(id);
  ASN1_TIME_free(begin);
  ASN1_TIME_free(end);
  ASN1_GENERALIZEDTIME_free(begins);
  ASN1_GENERALIZEDTIME_free(ends);
  return answer;
}

}  // namespace tidegate
