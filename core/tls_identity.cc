// SPDX-License-Identifier: Apache-2.0
// Certificates and keys: from PEM to OpenSSL objects, and what they say about themselves.
#include <openssl/pem.h>

#include <ctime>

#include "core/tls_openssl.h"

namespace tidegate {
namespace {

// Without this callback OpenSSL would ask for a passphrase on the terminal.
int refuse_passphrase(char*, int, int, void*) { return 0; }

BioPtr borrow(const std::string& pem) { return BioPtr(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size()))); }

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c | 0x20) : c;
  return out;
}

std::string name_text(const X509_NAME* name) {
  const BioPtr out(BIO_new(BIO_s_mem()));
  X509_NAME_print_ex(out.get(), name, 0, XN_FLAG_RFC2253 & ~static_cast<unsigned long>(ASN1_STRFLGS_ESC_MSB));
  char* text = nullptr;
  const long bytes = BIO_get_mem_data(out.get(), &text);
  return {text, static_cast<size_t>(bytes)};
}

// RFC 6125 §6.4: the DNS names of the subject alternative name count. The common name counts only if there are none.
std::vector<std::string> dns_names(X509* certificate) {
  std::vector<std::string> names;
  auto* alternatives =
      static_cast<GENERAL_NAMES*>(X509_get_ext_d2i(certificate, NID_subject_alt_name, nullptr, nullptr));
  for (int i = 0; i < sk_GENERAL_NAME_num(alternatives); ++i) {
    const GENERAL_NAME* name = sk_GENERAL_NAME_value(alternatives, i);
    if (name->type != GEN_DNS) continue;
    const std::string_view text(reinterpret_cast<const char*>(ASN1_STRING_get0_data(name->d.dNSName)),
                                static_cast<size_t>(ASN1_STRING_length(name->d.dNSName)));
    if (text.find('\0') == std::string_view::npos) names.push_back(lower(text));
  }
  GENERAL_NAMES_free(alternatives);
  if (!names.empty()) return names;
  const X509_NAME* subject = X509_get_subject_name(certificate);
  const int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
  if (at < 0) return names;
  unsigned char* utf8 = nullptr;
  const int bytes = ASN1_STRING_to_UTF8(&utf8, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)));
  if (bytes > 0) names.push_back(lower({reinterpret_cast<char*>(utf8), static_cast<size_t>(bytes)}));
  OPENSSL_free(utf8);
  return names;
}

}  // namespace

int64_t epoch_of(const ASN1_TIME* time) {
  tm utc{};
  return ASN1_TIME_to_tm(time, &utc) == 1 ? static_cast<int64_t>(::timegm(&utc)) : 0;
}

std::string take_openssl_error() {
  const unsigned long code = ERR_peek_error();
  const char* reason = code != 0 ? ERR_reason_error_string(code) : nullptr;
  std::string text = reason != nullptr ? reason : "unknown error";
  ERR_clear_error();
  return text;
}

Result<X509StackPtr> parse_certificates(const std::string& pem) {
  const BioPtr in = borrow(pem);
  X509StackPtr chain(sk_X509_new_null());
  while (X509* certificate = PEM_read_bio_X509(in.get(), nullptr, refuse_passphrase, nullptr)) {
    sk_X509_push(chain.get(), certificate);
  }
  // Finding no further PEM block is the normal end of the list.
  const unsigned long code = ERR_peek_last_error();
  const bool at_end = ERR_GET_LIB(code) == ERR_LIB_PEM && ERR_GET_REASON(code) == PEM_R_NO_START_LINE;
  if (!at_end) return fail("certificate: " + take_openssl_error());
  ERR_clear_error();
  if (sk_X509_num(chain.get()) == 0) return fail("certificate: no PEM certificate found");
  return chain;
}

Result<LoadedIdentity> load_identity(const TlsIdentity& identity) {
  Result<X509StackPtr> chain = parse_certificates(identity.certificate_pem);
  if (!chain) return chain.error();
  LoadedIdentity loaded;
  loaded.certificate.reset(sk_X509_shift(chain->get()));
  loaded.intermediates = std::move(*chain);
  const BioPtr in = borrow(identity.key_pem);
  loaded.key.reset(PEM_read_bio_PrivateKey(in.get(), nullptr, refuse_passphrase, nullptr));
  if (!loaded.key) return fail("private key: no readable, unencrypted PEM key found: " + take_openssl_error());
  if (X509_check_private_key(loaded.certificate.get(), loaded.key.get()) != 1) {
    return fail("private key: does not belong to certificate " +
                name_text(X509_get_subject_name(loaded.certificate.get())) + ": " + take_openssl_error());
  }
  return loaded;
}

CertificateInfo describe_certificate(X509* certificate) {
  CertificateInfo info;
  info.names = dns_names(certificate);
  info.not_before_s = epoch_of(X509_get0_notBefore(certificate));
  info.not_after_s = epoch_of(X509_get0_notAfter(certificate));
  info.subject = name_text(X509_get_subject_name(certificate));
  info.issuer = name_text(X509_get_issuer_name(certificate));
  return info;
}

ServerIdentity::ServerIdentity(std::unique_ptr<const Impl> impl) : impl_(std::move(impl)) {}
ServerIdentity::~ServerIdentity() = default;

Result<std::shared_ptr<const ServerIdentity>> ServerIdentity::load(const TlsIdentity& identity) {
  Result<LoadedIdentity> loaded = load_identity(identity);
  if (!loaded) return loaded.error();
  auto impl = std::make_unique<Impl>();
  impl->names = describe_certificate(loaded->certificate.get()).names;
  impl->loaded = *std::move(loaded);
  return std::shared_ptr<const ServerIdentity>(new ServerIdentity(std::move(impl)));
}

void ServerIdentity::set_staple(std::shared_ptr<const Staple> staple) const { impl_->staple = std::move(staple); }

Result<CertificateInfo> inspect_identity(const TlsIdentity& identity) {
  const Result<LoadedIdentity> loaded = load_identity(identity);
  if (!loaded) return loaded.error();
  // OpenSSL refuses keys and signatures that are too weak only when a server is to use them.
  const SslCtxPtr server(SSL_CTX_new(TLS_server_method()));
  if (SSL_CTX_use_cert_and_key(server.get(), loaded->certificate.get(), loaded->key.get(), loaded->intermediates.get(),
                               1) != 1) {
    return fail("certificate: no server can use it: " + take_openssl_error());
  }
  return describe_certificate(loaded->certificate.get());
}

}  // namespace tidegate
