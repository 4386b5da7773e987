// SPDX-License-Identifier: Apache-2.0
#include "core/tls_clients.h"

#include <openssl/pem.h>

#include <algorithm>
#include <iterator>
#include <vector>

#include "core/crypto.h"
#include "core/limits.h"
#include "core/tls_context.h"

namespace tidegate {
namespace {

using CrlPtr = std::unique_ptr<X509_CRL, OpensslFree<X509_CRL_free>>;
using StoreContextPtr = std::unique_ptr<X509_STORE_CTX, OpensslFree<X509_STORE_CTX_free>>;
using GeneralNamesPtr = std::unique_ptr<GENERAL_NAMES, OpensslFree<GENERAL_NAMES_free>>;

Result<std::vector<CrlPtr>> parse_revocation_lists(const std::string& pem) {
  const BioPtr in(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
  std::vector<CrlPtr> lists;
  while (X509_CRL* list = PEM_read_bio_X509_CRL(in.get(), nullptr, nullptr, nullptr)) lists.emplace_back(list);
  const unsigned long code = ERR_peek_last_error();
  const bool at_end = ERR_GET_LIB(code) == ERR_LIB_PEM && ERR_GET_REASON(code) == PEM_R_NO_START_LINE;
  if (!at_end) return fail("revocation list: " + take_openssl_error());
  ERR_clear_error();
  if (lists.empty()) return fail("revocation list: no PEM list found");
  return lists;
}

int64_t end_of(const std::vector<CrlPtr>& lists) {
  int64_t until_s = INT64_MAX;
  for (const CrlPtr& list : lists) {
    if (const ASN1_TIME* next = X509_CRL_get0_nextUpdate(list.get())) until_s = std::min(until_s, epoch_of(next));
  }
  return until_s;
}

struct ReadClientRules {
  X509StackPtr authorities;
  std::vector<CrlPtr> lists;
};

// If there are revocation lists, each authority must have one. Without a list, every certificate that the authority
// signed would be refused.
Result<ReadClientRules> read_client_rules(const TlsClientRules& rules) {
  Result<X509StackPtr> authorities = parse_certificates(rules.authorities_pem);
  if (!authorities) return authorities.error();
  ReadClientRules read;
  read.authorities = *std::move(authorities);
  if (rules.revoked_pem.empty()) return read;
  Result<std::vector<CrlPtr>> lists = parse_revocation_lists(rules.revoked_pem);
  if (!lists) return lists.error();
  read.lists = *std::move(lists);
  for (int i = 0; i < sk_X509_num(read.authorities.get()); ++i) {
    X509* const authority = sk_X509_value(read.authorities.get(), i);
    bool has_one = false;
    for (const CrlPtr& list : read.lists) {
      if (X509_NAME_cmp(X509_CRL_get_issuer(list.get()), X509_get_subject_name(authority)) != 0) continue;
      if (X509_CRL_verify(list.get(), X509_get0_pubkey(authority)) == 1) has_one = true;
    }
    ERR_clear_error();
    if (!has_one) {
      return fail("revocation list: authority " + describe_certificate(authority).subject + " has signed none of them");
    }
  }
  return read;
}

// A trusted authority needs no list of the authority that signed it. To revoke it, take it out of the file.
int on_client_verified(int good, X509_STORE_CTX* verifying) {
  if (good == 1 || X509_STORE_CTX_get_error(verifying) != X509_V_ERR_UNABLE_TO_GET_CRL) return good;
  const STACK_OF(X509)* const chain = X509_STORE_CTX_get0_chain(verifying);
  if (X509_STORE_CTX_get_error_depth(verifying) + 1 != sk_X509_num(chain)) return good;
  X509_STORE_CTX_set_error(verifying, X509_V_OK);
  return 1;
}

ClientCertificateFault fault_of(long verified) {
  switch (verified) {
    case X509_V_OK:
      return ClientCertificateFault::none;
    case X509_V_ERR_CERT_HAS_EXPIRED:
      return ClientCertificateFault::expired;
    case X509_V_ERR_CERT_NOT_YET_VALID:
      return ClientCertificateFault::early;
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
    case X509_V_ERR_CERT_UNTRUSTED:
      return ClientCertificateFault::unknown_authority;
    case X509_V_ERR_CERT_REVOKED:
      return ClientCertificateFault::revoked;
    case X509_V_ERR_INVALID_PURPOSE:
      return ClientCertificateFault::wrong_purpose;
    case X509_V_ERR_UNABLE_TO_GET_CRL:
    case X509_V_ERR_CRL_HAS_EXPIRED:
    case X509_V_ERR_CRL_NOT_YET_VALID:
    case X509_V_ERR_CRL_SIGNATURE_FAILURE:
    case X509_V_ERR_UNABLE_TO_GET_CRL_ISSUER:
      return ClientCertificateFault::revocation_unknown;
    default:
      return ClientCertificateFault::bad_chain;
  }
}

std::string visible_text(const ASN1_STRING* text) {
  const std::string out(reinterpret_cast<const char*>(ASN1_STRING_get0_data(text)),
                        static_cast<size_t>(ASN1_STRING_length(text)));
  const bool visible = std::all_of(out.begin(), out.end(), [](char c) { return c > ' ' && c < '\x7f'; });
  return visible ? out : std::string();
}

// SPIFFE ID §2: a scheme, a trust domain and a path; no port, no user, no query, no fragment; at most 2048 bytes.
bool is_spiffe_id(std::string_view uri) {
  constexpr std::string_view kScheme = "spiffe://";
  constexpr size_t kMostBytes = 2048;
  if (!uri.starts_with(kScheme) || uri.size() > kMostBytes || uri.back() == '/') return false;
  std::string_view rest = uri.substr(kScheme.size());
  const size_t slash = rest.find('/');
  const auto among = [](std::string_view text, std::string_view more) {
    return std::all_of(text.begin(), text.end(), [more](char c) {
      return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || more.find(c) != std::string_view::npos;
    });
  };
  const std::string_view domain = rest.substr(0, slash);
  if (domain.empty() || domain.size() > 255 || !among(domain, "-._")) return false;
  if (slash == std::string_view::npos) return true;
  const std::string path = std::string(rest.substr(slash)) + "/";  // so that each segment has a slash at both ends
  const auto lacks = [&path](std::string_view part) { return path.find(part) == std::string::npos; };
  return lacks("//") && lacks("/./") && lacks("/../") && among(path, "/-._ABCDEFGHIJKLMNOPQRSTUVWXYZ");
}

void read_alternative_names(X509* certificate, PeerCertificate& out) {
  const GeneralNamesPtr names(
      static_cast<GENERAL_NAMES*>(X509_get_ext_d2i(certificate, NID_subject_alt_name, nullptr, nullptr)));
  size_t uris = 0;
  for (int i = 0; i < sk_GENERAL_NAME_num(names.get()); ++i) {
    const GENERAL_NAME* const name = sk_GENERAL_NAME_value(names.get(), i);
    if (name->type == GEN_URI) {
      ++uris;
      out.spiffe = visible_text(name->d.uniformResourceIdentifier);
    } else if (name->type == GEN_DNS && out.dns.empty()) {
      out.dns = visible_text(name->d.dNSName);
      for (char& c : out.dns) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c | 0x20) : c;
    } else if (name->type == GEN_EMAIL && out.email.empty()) {
      out.email = visible_text(name->d.rfc822Name);
    }
  }
  // X509-SVID §2 and §4.1: exactly one URI, and not in the certificate of an authority.
  if (uris != 1 || !is_spiffe_id(out.spiffe) || X509_check_ca(certificate) == 1) out.spiffe.clear();
}

void read_subject(X509* certificate, PeerCertificate& out) {
  const BioPtr text(BIO_new(BIO_s_mem()));
  X509_NAME_print_ex(text.get(), X509_get_subject_name(certificate), 0, XN_FLAG_RFC2253);
  char* bytes = nullptr;
  const long count = BIO_get_mem_data(text.get(), &bytes);
  out.subject.assign(bytes, static_cast<size_t>(count));
  const X509_NAME* const subject = X509_get_subject_name(certificate);
  const int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
  if (at < 0) return;
  const ASN1_STRING* const common = X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at));
  const std::string name(reinterpret_cast<const char*>(ASN1_STRING_get0_data(common)),
                         static_cast<size_t>(ASN1_STRING_length(common)));
  const bool visible = std::all_of(name.begin(), name.end(), [](char c) { return c >= ' ' && c < '\x7f'; });
  if (visible && !name.starts_with(' ') && !name.ends_with(' ')) out.common_name = name;
}

}  // namespace

const char* name(ClientCertificateFault fault) {
  constexpr const char* kNames[] = {
      "none",     "missing", "expired", "early", "unknown_authority", "revoked", "wrong_purpose", "revocation_unknown",
      "bad_chain"};
  static_assert(std::size(kNames) == static_cast<size_t>(ClientCertificateFault::count_));
  return kNames[static_cast<size_t>(fault)];
}

Result<int64_t> inspect_client_rules(const TlsClientRules& rules) {
  const Result<ReadClientRules> read = read_client_rules(rules);
  if (!read) return read.error();
  return end_of(read->lists);
}

Result<int64_t> ask_clients(TlsContext::Impl& server, const TlsClientRules& rules) {
  Result<ReadClientRules> read = read_client_rules(rules);
  if (!read) return read.error();
  SSL_CTX* const context = server.context.get();
  X509_STORE* const store = SSL_CTX_get_cert_store(context);
  for (int i = 0; i < sk_X509_num(read->authorities.get()); ++i) {
    X509* const authority = sk_X509_value(read->authorities.get(), i);
    X509_STORE_add_cert(store, authority);
    SSL_CTX_add_client_CA(context, authority);
  }
  for (const CrlPtr& list : read->lists) X509_STORE_add_crl(store, list.get());
  X509_STORE_set_flags(store, X509_V_FLAG_PARTIAL_CHAIN |
                                  (read->lists.empty() ? 0UL : X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL));
  SSL_CTX_set_verify(context, SSL_VERIFY_PEER | (rules.optional ? 0 : SSL_VERIFY_FAIL_IF_NO_PEER_CERT),
                     on_client_verified);
  SSL_CTX_set_verify_depth(context, kClientChainDepth);
  SSL_CTX_set_max_cert_list(context, kClientChainBytes);
  const Sha256 digest = sha256((rules.optional ? "optional " : "required ") + sha256_hex(rules.authorities_pem) +
                               sha256_hex(rules.revoked_pem));
  static_assert(SSL_MAX_SID_CTX_LENGTH == sizeof digest);
  server.client_rules.assign(digest.begin(), digest.end());
  SSL_CTX_set_session_id_context(context, reinterpret_cast<const unsigned char*>(server.client_rules.data()),
                                 static_cast<unsigned>(server.client_rules.size()));
  return end_of(read->lists);
}

ClientCertificateFault client_certificate_fault(const TlsStream& stream) {
  if (showed_no_certificate(stream)) return ClientCertificateFault::missing;
  return fault_of(SSL_get_verify_result(ssl_of(stream)));
}

std::unique_ptr<PeerCertificate> peer_certificate(const TlsStream& stream) {
  X509* const certificate = SSL_get0_peer_certificate(ssl_of(stream));
  if (certificate == nullptr) return nullptr;
  auto out = std::make_unique<PeerCertificate>();
  read_alternative_names(certificate, *out);
  read_subject(certificate, *out);
  BIGNUM* const serial = ASN1_INTEGER_to_BN(X509_get0_serialNumber(certificate), nullptr);
  char* const digits = BN_bn2hex(serial);
  out->serial = digits;
  OPENSSL_free(digits);
  BN_free(serial);
  unsigned char* der = nullptr;
  const int bytes = i2d_X509(certificate, &der);
  const std::string_view form(reinterpret_cast<const char*>(der), bytes > 0 ? static_cast<size_t>(bytes) : 0);
  out->fingerprint = sha256_hex(form);
  out->encoded = ":" + base64_encode(form) + ":";
  OPENSSL_free(der);
  ERR_clear_error();
  return out;
}

ClientCertificateFault judge_peer(const TlsStream& stream, const TlsContext& context) {
  if (client_rules_digest(context).empty()) return ClientCertificateFault::none;
  SSL* const ssl = ssl_of(stream);
  X509* const certificate = SSL_get0_peer_certificate(ssl);
  SSL_CTX* const server = context.get();
  if (certificate == nullptr) {
    const bool required = (SSL_CTX_get_verify_mode(server) & SSL_VERIFY_FAIL_IF_NO_PEER_CERT) != 0;
    return required ? ClientCertificateFault::missing : ClientCertificateFault::none;
  }
  const StoreContextPtr verifying(X509_STORE_CTX_new());
  if (X509_STORE_CTX_init(verifying.get(), SSL_CTX_get_cert_store(server), certificate, SSL_get_peer_cert_chain(ssl)) !=
      1) {
    return ClientCertificateFault::bad_chain;
  }
  X509_STORE_CTX_set_default(verifying.get(), "ssl_client");
  X509_STORE_CTX_set_depth(verifying.get(), kClientChainDepth);
  X509_STORE_CTX_set_verify_cb(verifying.get(), on_client_verified);
  const bool good = X509_verify_cert(verifying.get()) == 1;
  const ClientCertificateFault fault = fault_of(X509_STORE_CTX_get_error(verifying.get()));
  ERR_clear_error();
  if (good) return ClientCertificateFault::none;
  return fault == ClientCertificateFault::none ? ClientCertificateFault::bad_chain : fault;
}

const std::string& client_rules_digest(const TlsContext& context) { return context.impl().client_rules; }

}  // namespace tidegate
