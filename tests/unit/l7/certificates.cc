// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/l7/certificates.h"

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "core/crypto.h"

namespace tidegate::l7::test {
namespace {

template <class T, void (*Free)(T*)>
struct Deleter {
  void operator()(T* object) const { Free(object); }
};
using Key = std::unique_ptr<EVP_PKEY, Deleter<EVP_PKEY, EVP_PKEY_free>>;
using Leaf = std::unique_ptr<X509, Deleter<X509, X509_free>>;

template <class Write>
std::string pem(Write write) {
  BIO* bio = BIO_new(BIO_s_mem());
  write(bio);
  char* data = nullptr;
  const long bytes = BIO_get_mem_data(bio, &data);
  std::string out(data, static_cast<size_t>(bytes));
  BIO_free(bio);
  return out;
}

}  // namespace

Certificate certificate_for(const std::string& name) {
  const Key key(EVP_EC_gen("P-256"));
  const Leaf leaf(X509_new());
  X509_set_version(leaf.get(), 2);
  ASN1_INTEGER_set(X509_get_serialNumber(leaf.get()), 1);
  X509_gmtime_adj(X509_getm_notBefore(leaf.get()), -3600);
  X509_gmtime_adj(X509_getm_notAfter(leaf.get()), 3600);
  X509_set_pubkey(leaf.get(), key.get());
  X509_NAME* subject = X509_get_subject_name(leaf.get());
  X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, reinterpret_cast<const unsigned char*>(name.c_str()), -1, -1,
                             0);
  X509_set_issuer_name(leaf.get(), subject);
  X509_EXTENSION* names = X509V3_EXT_conf_nid(nullptr, nullptr, NID_subject_alt_name, ("DNS:" + name).c_str());
  X509_add_ext(leaf.get(), names, -1);
  X509_EXTENSION_free(names);
  X509_sign(leaf.get(), key.get(), EVP_sha256());
  const auto blob = [](std::string text) {
    Blob out;
    out.hash = sha256_hex(text);
    out.bytes = std::make_shared<const std::string>(std::move(text));
    return out;
  };
  Certificate certificate;
  certificate.name = name;
  certificate.certificate = blob(pem([&](BIO* bio) { PEM_write_bio_X509(bio, leaf.get()); }));
  certificate.key =
      blob(pem([&](BIO* bio) { PEM_write_bio_PrivateKey(bio, key.get(), nullptr, nullptr, 0, nullptr, nullptr); }));
  return certificate;
}

}  // namespace tidegate::l7::test
