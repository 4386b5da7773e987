// SPDX-License-Identifier: Apache-2.0
// Certificates that tests make for themselves.
#pragma once

#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <algorithm>
#include <functional>
#include <string>

#include "core/tls.h"

namespace tidegate {

inline std::string pem_of(const std::function<void(BIO*)>& write) {
  BIO* out = BIO_new(BIO_s_mem());
  write(out);
  char* text = nullptr;
  const long bytes = BIO_get_mem_data(out, &text);
  std::string pem(text, static_cast<size_t>(bytes));
  BIO_free(out);
  return pem;
}

// A self-signed certificate for these names ("DNS:a,IP:192.0.2.1"), valid for an hour, with a new P-256 or RSA key.
// `ends_in_s`, `begins_in_s`: from now.
inline TlsIdentity make_identity(const std::string& common_name, const std::string& alternatives = {}, bool rsa = false,
                                 long ends_in_s = 3600, long begins_in_s = -60, unsigned rsa_bits = 2048) {
  EVP_PKEY* key = rsa ? EVP_RSA_gen(rsa_bits) : EVP_EC_gen("P-256");
  X509* certificate = X509_new();
  X509_set_version(certificate, 2);
  ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1);
  X509_gmtime_adj(X509_getm_notBefore(certificate), std::min(begins_in_s, ends_in_s));
  X509_gmtime_adj(X509_getm_notAfter(certificate), ends_in_s);
  X509_NAME* name = X509_get_subject_name(certificate);
  X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8, reinterpret_cast<const unsigned char*>(common_name.c_str()), -1,
                             -1, 0);
  X509_set_issuer_name(certificate, name);
  X509_set_pubkey(certificate, key);
  if (!alternatives.empty()) {
    X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, nullptr, NID_subject_alt_name, alternatives.c_str());
    X509_add_ext(certificate, extension, -1);
    X509_EXTENSION_free(extension);
  }
  X509_sign(certificate, key, EVP_sha256());
  TlsIdentity identity;
  identity.certificate_pem = pem_of([&](BIO* out) { PEM_write_bio_X509(out, certificate); });
  identity.key_pem =
      pem_of([&](BIO* out) { PEM_write_bio_PrivateKey(out, key, nullptr, nullptr, 0, nullptr, nullptr); });
  X509_free(certificate);
  EVP_PKEY_free(key);
  return identity;
}

}  // namespace tidegate
