// SPDX-License-Identifier: Apache-2.0
#include "core/signing_key.h"

#include <openssl/ec.h>
#include <openssl/ecdsa.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <array>

#include "core/assert.h"
#include "core/tls_openssl.h"

namespace tidegate {
namespace {

using SignaturePtr = std::unique_ptr<ECDSA_SIG, OpensslFree<ECDSA_SIG_free>>;
using DigestCtxPtr = std::unique_ptr<EVP_MD_CTX, OpensslFree<EVP_MD_CTX_free>>;
using RequestPtr = std::unique_ptr<X509_REQ, OpensslFree<X509_REQ_free>>;
using NamesPtr = std::unique_ptr<GENERAL_NAMES, OpensslFree<GENERAL_NAMES_free>>;
using OctetsPtr = std::unique_ptr<ASN1_OCTET_STRING, OpensslFree<ASN1_OCTET_STRING_free>>;
using NumberPtr = std::unique_ptr<BIGNUM, OpensslFree<BN_free>>;
using ExtensionPtr = std::unique_ptr<X509_EXTENSION, OpensslFree<X509_EXTENSION_free>>;
using ObjectPtr = std::unique_ptr<ASN1_OBJECT, OpensslFree<ASN1_OBJECT_free>>;
void free_extensions(STACK_OF(X509_EXTENSION) * list) { sk_X509_EXTENSION_pop_free(list, X509_EXTENSION_free); }
using ExtensionsPtr = std::unique_ptr<STACK_OF(X509_EXTENSION), OpensslFree<free_extensions>>;

constexpr int kCoordinateBytes = 32;
constexpr size_t kMaxCommonNameBytes = 64;  // RFC 5280, upper bound of a common name
constexpr const char* kAcmeIdentifierOid = "1.3.6.1.5.5.7.1.31";
constexpr int kSerialBytes = 16;

Error openssl_failed(const char* what) { return fail(std::string(what) + ": " + take_openssl_error()); }

std::string taken(BIO* bio) {
  char* text = nullptr;
  const long bytes = BIO_get_mem_data(bio, &text);
  return {text, static_cast<size_t>(bytes)};
}

std::string coordinate(EVP_PKEY* key, const char* which) {
  BIGNUM* raw = nullptr;
  if (EVP_PKEY_get_bn_param(key, which, &raw) != 1) return {};
  const NumberPtr number(raw);
  std::string bytes(kCoordinateBytes, '\0');
  if (BN_bn2binpad(number.get(), reinterpret_cast<unsigned char*>(bytes.data()), kCoordinateBytes) != kCoordinateBytes)
    return {};
  return bytes;
}

NamesPtr general_names(const std::vector<std::string>& names) {
  NamesPtr list(GENERAL_NAMES_new());
  for (const std::string& name : names) {
    GENERAL_NAME* entry = GENERAL_NAME_new();
    ASN1_IA5STRING* text = ASN1_IA5STRING_new();
    ASN1_STRING_set(text, name.data(), static_cast<int>(name.size()));
    GENERAL_NAME_set0_value(entry, GEN_DNS, text);
    sk_GENERAL_NAME_push(list.get(), entry);
  }
  return list;
}

void set_common_name(X509_NAME* subject, const std::vector<std::string>& names) {
  for (const std::string& name : names) {
    if (name.size() > kMaxCommonNameBytes) continue;
    X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_UTF8, reinterpret_cast<const unsigned char*>(name.data()),
                               static_cast<int>(name.size()), -1, 0);
    return;
  }
}

bool add_acme_identifier(X509* certificate, const Sha256& digest) {
  // The value is an OCTET STRING with the digest, inside of the OCTET STRING that every extension is.
  std::string value{'\x04', static_cast<char>(digest.size())};
  value.append(digest.begin(), digest.end());
  const OctetsPtr octets(ASN1_OCTET_STRING_new());
  ASN1_OCTET_STRING_set(octets.get(), reinterpret_cast<const unsigned char*>(value.data()),
                        static_cast<int>(value.size()));
  const ObjectPtr oid(OBJ_txt2obj(kAcmeIdentifierOid, 1));
  const ExtensionPtr extension(X509_EXTENSION_create_by_OBJ(nullptr, oid.get(), 1, octets.get()));
  return extension && X509_add_ext(certificate, extension.get(), -1) == 1;
}

bool set_random_serial(X509* certificate) {
  std::string bytes = random_bytes(kSerialBytes);
  bytes[0] = static_cast<char>(bytes[0] & 0x7f);  // positive
  const NumberPtr number(
      BN_bin2bn(reinterpret_cast<const unsigned char*>(bytes.data()), static_cast<int>(bytes.size()), nullptr));
  return number && BN_to_ASN1_INTEGER(number.get(), X509_get_serialNumber(certificate)) != nullptr;
}

}  // namespace

struct SigningKey::Impl {
  KeyPtr key;
};

SigningKey::SigningKey(std::unique_ptr<Impl> impl)
    : impl_(std::move(impl)), x_(coordinate(impl_->key.get(), "qx")), y_(coordinate(impl_->key.get(), "qy")) {}
SigningKey::SigningKey(SigningKey&&) noexcept = default;
SigningKey& SigningKey::operator=(SigningKey&&) noexcept = default;
SigningKey::~SigningKey() = default;

Result<SigningKey> SigningKey::make() {
  auto impl = std::make_unique<Impl>();
  impl->key.reset(EVP_EC_gen("P-256"));
  if (!impl->key) return openssl_failed("cannot make a key");
  SigningKey key(std::move(impl));
  TIDEGATE_ASSERT(!key.x_.empty() && !key.y_.empty(), "a key of P-256 has two coordinates");
  return key;
}

Result<SigningKey> SigningKey::from_pem(const std::string& pem) {
  const BioPtr bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
  auto impl = std::make_unique<Impl>();
  // Without a callback OpenSSL would ask for a passphrase on the terminal.
  impl->key.reset(PEM_read_bio_PrivateKey(
      bio.get(), nullptr, [](char*, int, int, void*) { return 0; }, nullptr));
  if (!impl->key) return openssl_failed("the key cannot be read");
  std::array<char, 32> group{};
  if (EVP_PKEY_get_group_name(impl->key.get(), group.data(), group.size(), nullptr) != 1 ||
      std::string_view(group.data()) != "prime256v1") {
    ERR_clear_error();
    return fail("it is no key of P-256");
  }
  SigningKey key(std::move(impl));
  if (key.x_.empty() || key.y_.empty()) return openssl_failed("the key has no public part");
  return key;
}

Result<std::string> SigningKey::to_pem() const {
  const BioPtr out(BIO_new(BIO_s_mem()));
  if (PEM_write_bio_PKCS8PrivateKey(out.get(), impl_->key.get(), nullptr, nullptr, 0, nullptr, nullptr) != 1)
    return openssl_failed("cannot write a key");
  return taken(out.get());
}

Result<std::string> SigningKey::sign(std::string_view message) const {
  const DigestCtxPtr context(EVP_MD_CTX_new());
  size_t bytes = 0;
  const auto* text = reinterpret_cast<const unsigned char*>(message.data());
  std::array<unsigned char, 128> der{};
  bytes = der.size();
  if (EVP_DigestSignInit(context.get(), nullptr, EVP_sha256(), nullptr, impl_->key.get()) != 1 ||
      EVP_DigestSign(context.get(), der.data(), &bytes, text, message.size()) != 1) {
    return openssl_failed("cannot sign");
  }
  const unsigned char* at = der.data();
  const SignaturePtr signature(d2i_ECDSA_SIG(nullptr, &at, static_cast<long>(bytes)));
  if (!signature) return openssl_failed("cannot sign");
  std::string out(2 * kCoordinateBytes, '\0');
  auto* raw = reinterpret_cast<unsigned char*>(out.data());
  BN_bn2binpad(ECDSA_SIG_get0_r(signature.get()), raw, kCoordinateBytes);
  BN_bn2binpad(ECDSA_SIG_get0_s(signature.get()), raw + kCoordinateBytes, kCoordinateBytes);
  return out;
}

Result<std::string> SigningKey::request_certificate(const std::vector<std::string>& names) const {
  const RequestPtr request(X509_REQ_new());
  set_common_name(X509_REQ_get_subject_name(request.get()), names);
  const NamesPtr alternatives = general_names(names);
  const ExtensionsPtr extensions(sk_X509_EXTENSION_new_null());
  STACK_OF(X509_EXTENSION)* list = extensions.get();
  if (X509V3_add1_i2d(&list, NID_subject_alt_name, alternatives.get(), 0, X509V3_ADD_DEFAULT) != 1 ||
      X509_REQ_add_extensions(request.get(), list) != 1 || X509_REQ_set_pubkey(request.get(), impl_->key.get()) != 1 ||
      X509_REQ_sign(request.get(), impl_->key.get(), EVP_sha256()) == 0) {
    return openssl_failed("cannot make a request for a certificate");
  }
  unsigned char* der = nullptr;
  const int bytes = i2d_X509_REQ(request.get(), &der);
  if (bytes <= 0) return openssl_failed("cannot make a request for a certificate");
  std::string out(reinterpret_cast<char*>(der), static_cast<size_t>(bytes));
  OPENSSL_free(der);
  return out;
}

Result<std::string> SigningKey::certify_itself(const SelfSigned& wanted) const {
  TIDEGATE_ASSERT(!wanted.names.empty(), "a certificate is for a name");
  const X509Ptr certificate(X509_new());
  X509* const raw = certificate.get();
  X509_set_version(raw, X509_VERSION_3);
  ASN1_TIME_set(X509_getm_notBefore(raw), wanted.not_before_s);
  ASN1_TIME_set(X509_getm_notAfter(raw), wanted.not_after_s);
  set_common_name(X509_get_subject_name(raw), wanted.names);
  X509_set_issuer_name(raw, X509_get_subject_name(raw));
  const NamesPtr alternatives = general_names(wanted.names);
  const bool made = set_random_serial(raw) &&
                    X509_add1_ext_i2d(raw, NID_subject_alt_name, alternatives.get(), 0, X509V3_ADD_DEFAULT) == 1 &&
                    (!wanted.acme_identifier || add_acme_identifier(raw, *wanted.acme_identifier)) &&
                    X509_set_pubkey(raw, impl_->key.get()) == 1 && X509_sign(raw, impl_->key.get(), EVP_sha256()) != 0;
  const BioPtr out(BIO_new(BIO_s_mem()));
  if (!made || PEM_write_bio_X509(out.get(), raw) != 1) return openssl_failed("cannot make a certificate");
  return taken(out.get());
}

}  // namespace tidegate
