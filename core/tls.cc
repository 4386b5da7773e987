// SPDX-License-Identifier: Apache-2.0
// TLS contexts: which versions and ciphers servers and clients use, and which certificate belongs to which name.
#include "core/tls.h"

#include <algorithm>
#include <iterator>
#include <map>
#include <optional>

#include "core/tls_context.h"

namespace tidegate {
namespace {

// Only ciphers with forward secrecy and authentication. AES-128 comes first, or ChaCha20 for clients that prefer it (no
// AES in hardware).
constexpr char kTls12Ciphers[] =
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-CHACHA20-POLY1305:"
    "ECDHE-RSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384";
constexpr char kTls13Ciphers[] = "TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256:TLS_AES_256_GCM_SHA384";
constexpr char kGroups[] = "X25519:P-256:P-384";
constexpr unsigned char kSessionContext[] = "tidegate";  // equal on every host that shares ticket keys

bool is_valid_now(const X509* certificate) {
  return X509_cmp_current_time(X509_get0_notBefore(certificate)) < 0 &&
         X509_cmp_current_time(X509_get0_notAfter(certificate)) > 0;
}

std::string alpn_wire(const std::vector<std::string>& protocols) {
  std::string wire;
  for (const std::string& protocol : protocols) {
    wire.push_back(static_cast<char>(protocol.size()));
    wire += protocol;
  }
  return wire;
}

// RFC 7301 §3.2: selects our first protocol that the client offers. No common protocol is a fatal error.
int select_alpn(SSL*, const unsigned char** selected, unsigned char* selected_bytes, const unsigned char* offered,
                unsigned offered_bytes, void* wire_of_ours) {
  const std::string& ours = *static_cast<const std::string*>(wire_of_ours);
  for (size_t at = 0; at < ours.size(); at += 1 + static_cast<uint8_t>(ours[at])) {
    const std::string_view wanted(ours.data() + at, 1 + size_t{static_cast<uint8_t>(ours[at])});
    for (size_t i = 0; i < offered_bytes; i += size_t{1} + offered[i]) {
      const std::string_view candidate(reinterpret_cast<const char*>(offered) + i, size_t{1} + offered[i]);
      if (candidate != wanted) continue;
      *selected = offered + i + 1;
      *selected_bytes = offered[i];
      return SSL_TLSEXT_ERR_OK;
    }
  }
  return SSL_TLSEXT_ERR_ALERT_FATAL;
}

// The name is acknowledged, so that a session remembers the name it was made for.
int accept_server_name(SSL*, int*, void*) { return SSL_TLSEXT_ERR_OK; }

void set_modes(SSL_CTX* context) {
  SSL_CTX_set_mode(context,
                   SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  SSL_CTX_set_read_ahead(context, 1);  // one read(2) for many records
  // Sessions resume by tickets alone, also in TLS 1.2. A session id would stand for memory of one worker, and no other
  // worker or proxy could resume it. A client without tickets gets no session id.
  SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
}

Error tls_error(const char* what) { return fail(std::string("tls: ") + what + ": " + take_openssl_error()); }

Result<void> set_protocols(SSL_CTX* context, const TlsServerOptions& options) {
  const bool only_13 = options.min_version == "1.3";
  if (!only_13 && options.min_version != "1.2") return fail("tls: min_version is \"1.2\" or \"1.3\"");
  if (SSL_CTX_set_min_proto_version(context, only_13 ? TLS1_3_VERSION : TLS1_2_VERSION) != 1) {
    return tls_error("minimum version");
  }
  const char* const ciphers = options.ciphers.empty() ? kTls12Ciphers : options.ciphers.c_str();
  if (SSL_CTX_set_cipher_list(context, ciphers) != 1) return tls_error("ciphers");
  if (SSL_CTX_set_ciphersuites(context, kTls13Ciphers) != 1) return tls_error("TLS 1.3 ciphers");
  if (SSL_CTX_set1_groups_list(context, kGroups) != 1) return tls_error("groups");
  SSL_CTX_set_options(context, SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
  return {};
}

Result<void> check_alpn(const std::vector<std::string>& protocols) {
  for (const std::string& protocol : protocols) {
    if (protocol.empty() || protocol.size() > 255) return fail("tls: an ALPN protocol has 1 to 255 bytes");
  }
  return {};
}

}  // namespace

TlsContext::TlsContext(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
TlsContext::~TlsContext() = default;
SSL_CTX* TlsContext::get() const { return impl_->context.get(); }

// First the exact name, then the wildcard that covers its first label (RFC 6125 §6.4.3), then the first identity. An
// identity that has expired, or is not valid yet, is used only if no identity of that name is valid now.
std::vector<size_t> TlsContext::Impl::identities_for(std::string_view server_name) const {
  std::string name(server_name);
  for (char& c : name) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c | 0x20) : c;
  std::vector<const std::vector<size_t>*> candidates;
  if (const auto exact = by_name.find(name); exact != by_name.end()) candidates.push_back(&exact->second);
  if (const size_t dot = name.find('.'); dot != std::string::npos && dot != 0) {
    if (const auto wild = by_name.find("*" + name.substr(dot)); wild != by_name.end()) {
      candidates.push_back(&wild->second);
    }
  }
  for (const std::vector<size_t>* candidate : candidates) {
    std::vector<size_t> valid;
    std::copy_if(candidate->begin(), candidate->end(), std::back_inserter(valid),
                 [this](size_t index) { return is_valid_now(identities[index]->impl().loaded.certificate.get()); });
    if (!valid.empty()) return valid;
  }
  return candidates.empty() ? fallback : *candidates.front();
}

// Called once per full handshake, when SNI is known. Resumed sessions need no certificate. If several identities have
// the name but different key types, all are given to OpenSSL, which takes the one that the client can verify.
int TlsContext::Impl::choose_certificate(SSL* ssl, void* self) {
  const auto* impl = static_cast<const Impl*>(self);
  const char* name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
  const std::vector<size_t> chosen = impl->identities_for(name != nullptr ? name : "");
  if (chosen == impl->fallback) return 1;  // the context already has it
  SSL_certs_clear(ssl);
  for (const size_t index : chosen) {
    const LoadedIdentity& identity = impl->identities[index]->impl().loaded;
    if (SSL_use_cert_and_key(ssl, identity.certificate.get(), identity.key.get(), identity.intermediates.get(), 1) !=
        1) {
      return 0;
    }
  }
  return 1;
}

Result<void> TlsContext::Impl::take_identities(const TlsServerOptions& options) {
  for (const TlsIdentity& identity : options.identities) {
    Result<std::shared_ptr<const ServerIdentity>> loaded = ServerIdentity::load(identity);
    if (!loaded) return fail("tls: " + loaded.error().message);
    identities.push_back(*std::move(loaded));
  }
  identities.insert(identities.end(), options.loaded.begin(), options.loaded.end());
  if (identities.empty()) return fail("tls: a server needs a certificate");
  for (size_t i = 0; i < identities.size(); ++i) {
    for (const std::string& name : identities[i]->impl().names) by_name[name].push_back(i);
    by_certificate.emplace(identities[i]->impl().loaded.certificate.get(), identities[i].get());
  }
  fallback = {0};
  const LoadedIdentity& first = identities.front()->impl().loaded;
  if (SSL_CTX_use_cert_and_key(context.get(), first.certificate.get(), first.key.get(), first.intermediates.get(), 1) !=
      1) {
    return tls_error("certificate");
  }
  SSL_CTX_set_cert_cb(context.get(), &Impl::choose_certificate, this);
  return {};
}

Result<std::shared_ptr<TlsContext>> TlsContext::server(const TlsServerOptions& options) {
  auto impl = std::make_unique<Impl>();
  impl->context.reset(SSL_CTX_new(TLS_server_method()));
  SSL_CTX* const context = impl->context.get();
  if (context == nullptr) return tls_error("create context");
  set_modes(context);
  if (const Result<void> set = set_protocols(context, options); !set) return set.error();
  if (const Result<void> checked = check_alpn(options.alpn); !checked) return checked.error();
  if (const Result<void> taken = impl->take_identities(options); !taken) return taken.error();
  // Does what the macro SSL_CTX_set_tlsext_servername_callback does, without its old-style cast.
  SSL_CTX_callback_ctrl(context, SSL_CTRL_SET_TLSEXT_SERVERNAME_CB, reinterpret_cast<void (*)()>(accept_server_name));
  impl->show_staples();
  impl->alpn = alpn_wire(options.alpn);
  if (!impl->alpn.empty()) SSL_CTX_set_alpn_select_cb(context, select_alpn, &impl->alpn);
  SSL_CTX_set_session_id_context(context, kSessionContext, sizeof kSessionContext - 1);
  SSL_CTX_set_timeout(context, TicketKeys::kWindowS);
  int64_t revocations_until_s = INT64_MAX;
  if (options.clients) {
    const Result<int64_t> asked = ask_clients(*impl, *options.clients);
    if (!asked) return fail("tls: " + asked.error().message);
    revocations_until_s = *asked;
  }
  if (options.tickets) {
    impl->tickets.emplace(options.tickets);
    impl->tickets->serve(context);
    if (options.clients) impl->tickets->bind_to_certificates(context, revocations_until_s);
    SSL_CTX_set_num_tickets(context, 1);
  } else {
    SSL_CTX_set_options(context, SSL_OP_NO_TICKET);
    SSL_CTX_set_num_tickets(context, 0);
  }
  return std::shared_ptr<TlsContext>(new TlsContext(std::move(impl)));
}

Result<std::shared_ptr<TlsContext>> TlsContext::client(const TlsClientOptions& options) {
  auto impl = std::make_unique<Impl>();
  impl->context.reset(SSL_CTX_new(TLS_client_method()));
  SSL_CTX* const context = impl->context.get();
  if (context == nullptr) return tls_error("create context");
  set_modes(context);
  SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
  if (const Result<void> checked = check_alpn(options.alpn); !checked) return checked.error();
  const std::string alpn = alpn_wire(options.alpn);
  if (!alpn.empty()) {  // this function returns 0 on success
    SSL_CTX_set_alpn_protos(context, reinterpret_cast<const unsigned char*>(alpn.data()),
                            static_cast<unsigned>(alpn.size()));
  }
  if (options.identity) {
    const LoadedIdentity& own = options.identity->impl().loaded;
    if (SSL_CTX_use_cert_and_key(context, own.certificate.get(), own.key.get(), own.intermediates.get(), 1) != 1) {
      return tls_error("the client's certificate");
    }
  }
  impl->verifies = options.verify;
  SSL_CTX_set_verify(context, options.verify ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, nullptr);
  if (options.verify && options.ca_pem.empty() && SSL_CTX_set_default_verify_paths(context) != 1) {
    return tls_error("the system's certificate authorities");
  }
  if (options.verify && !options.ca_pem.empty()) {
    Result<X509StackPtr> roots = parse_certificates(options.ca_pem);
    if (!roots) return fail("tls: certificate authorities: " + roots.error().message);
    for (int i = 0; i < sk_X509_num(roots->get()); ++i) {
      X509_STORE_add_cert(SSL_CTX_get_cert_store(context), sk_X509_value(roots->get(), i));
    }
  }
  return std::shared_ptr<TlsContext>(new TlsContext(std::move(impl)));
}

}  // namespace tidegate
