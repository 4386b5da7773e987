// SPDX-License-Identifier: Apache-2.0
#include "core/certificate_id.h"

#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "core/crypto.h"
#include "core/tls_openssl.h"

namespace tidegate {

Result<std::string> renewal_identifier(const std::string& chain_pem) {
  const BioPtr bio(BIO_new_mem_buf(chain_pem.data(), static_cast<int>(chain_pem.size())));
  const X509Ptr certificate(PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr));
  if (!certificate) return fail("the certificate cannot be read: " + take_openssl_error());
  const ASN1_OCTET_STRING* authority = X509_get0_authority_key_id(certificate.get());
  if (authority == nullptr) return fail("the certificate does not name its authority's key");
  const std::string key(reinterpret_cast<const char*>(ASN1_STRING_get0_data(authority)),
                        static_cast<size_t>(ASN1_STRING_length(authority)));
  unsigned char* der = nullptr;
  const int bytes = i2d_ASN1_INTEGER(X509_get0_serialNumber(certificate.get()), &der);
  constexpr int kTagAndLength = 2;  // a serial number has at most 20 bytes (RFC 5280 §4.1.2.2)
  const bool sound = bytes > kTagAndLength && bytes - kTagAndLength == der[1];
  const std::string serial =
      sound ? std::string(reinterpret_cast<char*>(der) + kTagAndLength, static_cast<size_t>(bytes - kTagAndLength))
            : "";
  OPENSSL_free(der);
  if (!sound) return fail("the certificate's serial number is too long");
  return base64url_encode(key) + "." + base64url_encode(serial);
}

}  // namespace tidegate
