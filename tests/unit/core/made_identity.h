// SPDX-License-Identifier: Apache-2.0
// Certificates that tests make for themselves.
#pragma once

#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <algorithm>
#include <functional>
#include <string>
#include <vector>

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

inline void add_to_subject(X509* certificate, const char* field, const std::string& text) {
  X509_NAME_add_entry_by_txt(X509_get_subject_name(certificate), field, MBSTRING_UTF8,
                             reinterpret_cast<const unsigned char*>(text.c_str()), -1, -1, 0);
}

// A self-signed certificate of this key, which it takes, for these names ("DNS:a,IP:192.0.2.1"), valid for an hour.
// `ends_in_s`, `begins_in_s`: from now. `units`: each makes the subject longer.
inline TlsIdentity make_identity_of(EVP_PKEY* key, const std::string& common_name, const std::string& alternatives = {},
                                    long ends_in_s = 3600, long begins_in_s = -60,
                                    const std::vector<std::string>& units = {}) {
  X509* certificate = X509_new();
  X509_set_version(certificate, 2);
  ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1);
  X509_gmtime_adj(X509_getm_notBefore(certificate), std::min(begins_in_s, ends_in_s));
  X509_gmtime_adj(X509_getm_notAfter(certificate), ends_in_s);
  add_to_subject(certificate, "CN", common_name);
  for (const std::string& unit : units) add_to_subject(certificate, "OU", unit);
  X509_set_issuer_name(certificate, X509_get_subject_name(certificate));
  X509_set_pubkey(certificate, key);
  if (!alternatives.empty()) {
    X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, nullptr, NID_subject_alt_name, alternatives.c_str());
    X509_add_ext(certificate, extension, -1);
    X509_EXTENSION_free(extension);
  }
  const bool has_own_hash = EVP_PKEY_is_a(key, "ED25519") == 1 || EVP_PKEY_is_a(key, "ED448") == 1;
  X509_sign(certificate, key, has_own_hash ? nullptr : EVP_sha256());
  TlsIdentity identity;
  identity.certificate_pem = pem_of([&](BIO* out) { PEM_write_bio_X509(out, certificate); });
  identity.key_pem =
      pem_of([&](BIO* out) { PEM_write_bio_PrivateKey(out, key, nullptr, nullptr, 0, nullptr, nullptr); });
  X509_free(certificate);
  EVP_PKEY_free(key);
  return identity;
}

// The same with a new P-256 or RSA key.
inline TlsIdentity make_identity(const std::string& common_name, const std::string& alternatives = {}, bool rsa = false,
                                 long ends_in_s = 3600, long begins_in_s = -60, unsigned rsa_bits = 2048) {
  return make_identity_of(rsa ? EVP_RSA_gen(rsa_bits) : EVP_EC_gen("P-256"), common_name, alternatives, ends_in_s,
                          begins_in_s);
}

// Eight of them are too long for the message in which a server names the authorities that it trusts.
inline TlsIdentity make_identity_with_long_subject(size_t number) {
  return make_identity_of(EVP_EC_gen("P-256"), "authority " + std::to_string(number), {}, 3600, -60,
                          std::vector<std::string>(150, std::string(64, 'u')));
}

// Of fixed parameters, because finding others takes seconds.
inline EVP_PKEY* make_dsa_key() {
  static constexpr char kParameters[] =
      "-----BEGIN DSA PARAMETERS-----\n"
      "MIICKQKCAQEAnW/vPStiPYLZGd5TCljuOuNs0nnTBw+NU+U3rIovTmb5jgOP09S5\n"
      "W5cxFEMOti+nWXDyUVYPYQE1FOvOD77qRbjfy1IC3zZFlrHU39q6asWYVehYS80C\n"
      "H0CnbuddBCm2PTnxE65llU2JZzbQ/EBLW0q2PvtWnn+yCTEAnYObObG8FcTj0Ijk\n"
      "tjwV8WqiaqCG++W99pa4g0o7VEjMgDzmid6DKcmIWPxnT5Xqb4G6gziCjYu5zFUY\n"
      "G/EtD4JI5F7K8r2MFU7nr0yMUlcGpa/7ESl7MAJ9PCgwhV+SIGb7M2crcUji4JuP\n"
      "6QnRjQWg4BFaCC9zmUpyco4/FJvOAtO4MwIdAPdRAYBeZrku09S1EnbB9a1/ROXe\n"
      "srE7G7tm278CggEBAJxkw3TMvTDTZvv9i+9PdUqs3G3ZYaNN40XOtZuPRX7u0eqk\n"
      "+McBKih7+j+rYc4JCto9ONwXCrkY8oxDKqHVIRYoN27/rJ6K0cm/Mf/ZQY3arJjf\n"
      "buLx0n4eq+6cJkOLH6txCeT24cEdgg972VldCEMWXcN4TA/LLEd1e0M93EsjTdYO\n"
      "5yoTsG96MRqcduPMn+BAV84eB0b98rA+MIMfFuPHJsKhckc7BP7Q2vQ+k2mQWgjx\n"
      "e/ERp/zIcSBZIqOL+nCOpquNfizJ6rsMB+n63maSmZNrBddss+WE6yYl6RZCZLoZ\n"
      "m0FdzZblDZpBuMDqATxGGZg2wIjz57Z7/3s0Kic=\n"
      "-----END DSA PARAMETERS-----\n";
  BIO* in = BIO_new_mem_buf(kParameters, -1);
  EVP_PKEY* parameters = PEM_read_bio_Parameters(in, nullptr);
  BIO_free(in);
  EVP_PKEY_CTX* context = EVP_PKEY_CTX_new_from_pkey(nullptr, parameters, nullptr);
  EVP_PKEY* key = nullptr;
  EVP_PKEY_keygen_init(context);
  EVP_PKEY_keygen(context, &key);
  EVP_PKEY_CTX_free(context);
  EVP_PKEY_free(parameters);
  return key;
}

}  // namespace tidegate
