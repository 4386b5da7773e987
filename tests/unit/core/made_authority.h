// SPDX-License-Identifier: Apache-2.0
// Certificate authorities that tests make for themselves: certificates of clients, and revocation lists.
#pragma once

#include <vector>

#include "tests/unit/core/made_identity.h"

namespace tidegate {

struct IssuedTerms {
  std::string common_name = "client";
  std::string alternatives = {};       // "URI:spiffe://example.org/a,DNS:a.test"
  std::string purpose = "clientAuth";  // extended key usage; empty: none is named
  long serial = 7;
  long ends_in_s = 3600, begins_in_s = -60;  // from now
  bool authority = false;
  std::string responder = {};  // URL of its OCSP responder
  bool must_staple = false;
};

class MadeAuthority {
 public:
  explicit MadeAuthority(const std::string& common_name) : MadeAuthority(nullptr, common_name) {}
  // An authority below this one.
  MadeAuthority below(const std::string& common_name, long serial) const {
    return MadeAuthority(this, common_name, serial);
  }
  MadeAuthority(MadeAuthority&&) = default;

  // With the certificates of the authorities up to the root, the root left out.
  TlsIdentity issue(const IssuedTerms& terms) const {
    const Key key(EVP_EC_gen("P-256"), EVP_PKEY_free);
    const Certificate made = make(terms, key.get());
    TlsIdentity identity;
    identity.certificate_pem = pem_of([&](BIO* out) { PEM_write_bio_X509(out, made.get()); }) + chain_;
    identity.key_pem =
        pem_of([&](BIO* out) { PEM_write_bio_PrivateKey(out, key.get(), nullptr, nullptr, 0, nullptr, nullptr); });
    return identity;
  }
  // A list of these serial numbers, valid for this long from now.
  std::string revokes(const std::vector<long>& serials, long ends_in_s = 3600) const {
    X509_CRL* list = X509_CRL_new();
    X509_CRL_set_version(list, 1);
    X509_CRL_set_issuer_name(list, X509_get_subject_name(certificate_.get()));
    ASN1_TIME* time = X509_gmtime_adj(nullptr, -7200);
    X509_CRL_set1_lastUpdate(list, time);
    X509_gmtime_adj(time, ends_in_s);
    X509_CRL_set1_nextUpdate(list, time);
    X509_gmtime_adj(time, -3600);
    for (const long serial : serials) {
      X509_REVOKED* entry = X509_REVOKED_new();
      ASN1_INTEGER* number = ASN1_INTEGER_new();
      ASN1_INTEGER_set(number, serial);
      X509_REVOKED_set_serialNumber(entry, number);
      X509_REVOKED_set_revocationDate(entry, time);
      X509_CRL_add0_revoked(list, entry);
      ASN1_INTEGER_free(number);
    }
    ASN1_TIME_free(time);
    X509_CRL_sort(list);
    X509_CRL_sign(list, key_.get(), EVP_sha256());
    std::string pem = pem_of([&](BIO* out) { PEM_write_bio_X509_CRL(out, list); });
    X509_CRL_free(list);
    return pem;
  }
  std::string pem() const {
    return pem_of([&](BIO* out) { PEM_write_bio_X509(out, certificate_.get()); });
  }

  // Its own certificate and key: it signs OCSP answers itself.
  TlsIdentity identity() const {
    return {pem(), pem_of([&](BIO* out) {
              PEM_write_bio_PrivateKey(out, key_.get(), nullptr, nullptr, 0, nullptr, nullptr);
            })};
  }

 private:
  using Key = std::unique_ptr<EVP_PKEY, void (*)(EVP_PKEY*)>;
  using Certificate = std::unique_ptr<X509, void (*)(X509*)>;

  MadeAuthority(const MadeAuthority* above, const std::string& common_name, long serial = 1)
      : key_(EVP_EC_gen("P-256"), EVP_PKEY_free), certificate_(nullptr, X509_free) {
    IssuedTerms terms;
    terms.common_name = common_name;
    terms.serial = serial;
    terms.purpose = "";
    terms.authority = true;
    certificate_ = above == nullptr ? make(terms, key_.get()) : above->make(terms, key_.get());
    if (above != nullptr) chain_ = pem() + above->chain_;
  }

  // Signed by this authority. While it has no certificate itself, by its own key.
  Certificate make(const IssuedTerms& terms, EVP_PKEY* key) const {
    Certificate made(X509_new(), X509_free);
    X509* const certificate = made.get();
    X509_set_version(certificate, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(certificate), terms.serial);
    X509_gmtime_adj(X509_getm_notBefore(certificate), std::min(terms.begins_in_s, terms.ends_in_s - 60));
    X509_gmtime_adj(X509_getm_notAfter(certificate), terms.ends_in_s);
    X509_NAME* const name = X509_get_subject_name(certificate);
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8,
                               reinterpret_cast<const unsigned char*>(terms.common_name.c_str()), -1, -1, 0);
    X509_set_issuer_name(certificate, certificate_ ? X509_get_subject_name(certificate_.get()) : name);
    X509_set_pubkey(certificate, key);
    const auto add = [certificate](int nid, const std::string& value) {
      if (value.empty()) return;
      X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, nullptr, nid, value.c_str());
      X509_add_ext(certificate, extension, -1);
      X509_EXTENSION_free(extension);
    };
    add(NID_basic_constraints, terms.authority ? "critical,CA:TRUE" : "critical,CA:FALSE");
    add(NID_key_usage, terms.authority ? "critical,keyCertSign,cRLSign" : "critical,digitalSignature");
    add(NID_ext_key_usage, terms.purpose);
    add(NID_subject_alt_name, terms.alternatives);
    add(NID_info_access, terms.responder.empty() ? std::string() : "OCSP;URI:" + terms.responder);
    add(NID_tlsfeature, terms.must_staple ? "status_request" : "");
    X509_sign(certificate, key_.get(), EVP_sha256());
    return made;
  }

  Key key_;
  Certificate certificate_;
  std::string chain_;  // PEM: this one and those above it, without the root
};

}  // namespace tidegate
