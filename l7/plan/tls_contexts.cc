// SPDX-License-Identifier: Apache-2.0
#include "l7/plan/tls_contexts.h"

#include <fmt/format.h>

#include "conf/model.h"
#include "conf/model/certificate.h"
#include "core/tls_acme.h"
#include "core/tls_clients.h"

namespace tidegate::l7 {
namespace {

Error certificate_failed(const Description& description, uint32_t index, const Error& why) {
  return fail(fmt::format("certificate {}: {}", description.model().certificates[index].name, why.message));
}

// The context of this content, from those in force or those of a candidate. Null if neither has it.
template <class Object>
std::shared_ptr<Object> find_known(const std::string& made_of,
                                   const std::map<std::string, std::shared_ptr<Object>>& known,
                                   const std::map<std::string, std::shared_ptr<Object>>& held) {
  for (const auto* const each : {&known, &held}) {
    if (const auto found = each->find(made_of); found != each->end()) return found->second;
  }
  return nullptr;
}

}  // namespace

TlsServerOptions server_options(const Listener& listener) {
  TlsServerOptions options;
  if (listener.http2) options.alpn.emplace_back("h2");
  options.alpn.emplace_back("http/1.1");
  options.min_version = listener.tls.min_version;
  const ListenerClients& clients = listener.tls.clients;
  if (clients.enabled) {
    options.clients = std::make_shared<const TlsClientRules>(
        TlsClientRules{clients.ca.bytes ? *clients.ca.bytes : std::string(),
                       clients.crl.bytes ? *clients.crl.bytes : std::string(), clients.optional});
  }
  return options;
}

TlsClientOptions client_options(const Pool& pool) {
  TlsClientOptions options;
  if (pool.protocol != BackendProtocol::h1) options.alpn.emplace_back("h2");
  if (pool.protocol != BackendProtocol::h2) options.alpn.emplace_back("http/1.1");
  options.verify = pool.tls_verify;
  if (pool.tls_ca.bytes) options.ca_pem = *pool.tls_ca.bytes;
  return options;
}

Result<TlsContexts::Set> TlsContexts::prepare(const Description& description) {
  Known next;
  Result<Set> set = make(description, next);
  if (!set) return set;
  keep_staples(next);
  known_ = std::move(next);
  return set;
}

Result<void> TlsContexts::hold(const Description& description) {
  Known next;
  if (Result<Set> set = make(description, next); !set) return set.error();
  held_ = std::move(next);
  return {};
}

Result<TlsContexts::Set> TlsContexts::make(const Description& description, Known& next) {
  const Model& model = description.model();
  Set set;
  set.listeners.resize(model.listeners.size());
  for (const uint32_t index : description.listeners) {
    const Listener& listener = model.listeners[index];
    if (!listener.tls.enabled) continue;
    Result<std::shared_ptr<TlsContext>> context = for_listener(description, listener, next);
    if (!context) return fail(fmt::format("listener {}: {}", listener.name, context.error().message));
    set.listeners[index] = std::move(*context);
  }
  set.pools.resize(model.pools.size());
  for (size_t i = 0; i < model.pools.size(); ++i) {
    if (!model.pools[i].tls) continue;
    Result<std::shared_ptr<TlsContext>> context = for_pool(description, model.pools[i], next);
    if (!context) return fail(fmt::format("pool {}: {}", model.pools[i].name, context.error().message));
    set.pools[i] = std::move(*context);
  }
  return set;
}

// An identity that is still used and has shown a staple must be told that it shows none now.
void TlsContexts::keep_staples(Known& next) const {
  if (known_.staples.empty()) return;
  for (const auto& [content, identity] : next.identities) {
    if (known_.staples.contains(identity)) next.staples.emplace(identity, nullptr);
  }
}

Result<std::shared_ptr<TlsContext>> TlsContexts::for_listener(const Description& description, const Listener& listener,
                                                              Known& next) {
  std::string made_of = fmt::format("listener {} {}", listener.tls.min_version, listener.http2);
  std::vector<std::shared_ptr<const ServerIdentity>> identities;
  for (const uint32_t index : listener.tls.certificates) {
    const ServedCertificate& certificate = description.certificates[index];
    made_of += fmt::format(" {} {}", certificate.certificate.hash, certificate.key.hash);
    Result<std::shared_ptr<const ServerIdentity>> identity = identity_of(certificate, next);
    if (!identity) return certificate_failed(description, index, identity.error());
    if (certificate.staple) next.staples[*identity] = certificate.staple;
    identities.push_back(*std::move(identity));
  }
  const ListenerClients& clients = listener.tls.clients;
  if (clients.enabled) made_of += fmt::format(" clients {} {} {}", clients.optional, clients.ca.hash, clients.crl.hash);
  for (const AcmeIdentity& identity : description.acme_identities) made_of += " " + identity.proof;
  std::shared_ptr<TlsContext>& entry = next.contexts[made_of];
  if (!entry) entry = find_known(made_of, known_.contexts, held_.contexts);
  if (entry) return entry;
  TlsServerOptions options = server_options(listener);
  options.loaded = std::move(identities);
  options.tickets = tickets_;
  Result<std::shared_ptr<TlsContext>> context = TlsContext::server(options);
  if (context && !description.acme_identities.empty()) {
    Result<std::shared_ptr<TlsContext>> acme = for_authorities(description);
    if (!acme) return acme;
    context = with_acme(*std::move(context), *std::move(acme));
  }
  if (context) entry = *context;
  return context;
}

Result<std::shared_ptr<TlsContext>> TlsContexts::for_authorities(const Description& description) {
  TlsServerOptions options;
  for (const AcmeIdentity& identity : description.acme_identities) options.identities.push_back(identity.identity);
  options.alpn.emplace_back(kAcmeTlsProtocol);
  return TlsContext::server(options);
}

Result<std::shared_ptr<const ServerIdentity>> TlsContexts::identity_of(const ServedCertificate& certificate,
                                                                       Known& next) {
  const std::string content = certificate.certificate.hash + certificate.key.hash;
  std::shared_ptr<const ServerIdentity>& entry = next.identities[content];
  if (!entry) entry = find_known(content, known_.identities, held_.identities);
  if (entry) return entry;
  ++identities_read_;
  if (!certificate.certificate.bytes || !certificate.key.bytes) return fail("there is none");
  Result<std::shared_ptr<const ServerIdentity>> loaded =
      ServerIdentity::load({*certificate.certificate.bytes, *certificate.key.bytes});
  if (loaded) entry = *loaded;
  return loaded;
}

Result<std::shared_ptr<TlsContext>> TlsContexts::for_pool(const Description& description, const Pool& pool,
                                                          Known& next) {
  std::string made_of =
      fmt::format("pool {} {} {}", pool.tls_verify, pool.tls_ca.hash, static_cast<int>(pool.protocol));
  std::shared_ptr<const ServerIdentity> own;
  if (pool.tls_certificate != kNone) {
    const ServedCertificate& certificate = description.certificates[pool.tls_certificate];
    made_of += fmt::format(" {} {}", certificate.certificate.hash, certificate.key.hash);
    Result<std::shared_ptr<const ServerIdentity>> identity = identity_of(certificate, next);
    if (!identity) return certificate_failed(description, pool.tls_certificate, identity.error());
    own = *std::move(identity);
  }
  std::shared_ptr<TlsContext>& entry = next.contexts[made_of];
  if (!entry) entry = find_known(made_of, known_.contexts, held_.contexts);
  if (entry) return entry;
  TlsClientOptions options = client_options(pool);
  options.identity = std::move(own);
  Result<std::shared_ptr<TlsContext>> context = TlsContext::client(options);
  if (context) entry = *context;
  return context;
}

}  // namespace tidegate::l7
