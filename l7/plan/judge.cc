// SPDX-License-Identifier: Apache-2.0
#include "l7/plan/judge.h"

#include <fmt/format.h>

#include <string>
#include <unordered_set>
#include <utility>

#include "conf/model/certificate.h"
#include "conf/model/listener.h"
#include "conf/model/policy.h"
#include "conf/model/pool.h"
#include "conf/model/route.h"
#include "conf/policy/authenticate.h"
#include "core/mutex.h"
#include "core/tls_trial.h"
#include "l7/plan/certificates.h"
#include "l7/plan/policy_content.h"
#include "l7/plan/tls_contexts.h"
#include "l7/route/route_parts.h"

namespace tidegate::l7 {
namespace {

constexpr size_t kChainStep = 16 * 1024;  // chains that differ by less are sent alike

// Remembers contents that were judged without a fault. So a change judges only the contents that changed. Any thread.
class SoundContents {
 public:
  bool has(const std::string& content) {
    const MutexLock lock(mutex_);
    return sound_.contains(content);
  }
  void add(const std::string& content) {
    const MutexLock lock(mutex_);
    if (sound_.size() >= kMost) sound_.clear();
    sound_.insert(content);
  }

 private:
  static constexpr size_t kMost = 8'192;  // a site has hundreds
  Mutex mutex_;
  std::unordered_set<std::string> sound_ TIDEGATE_GUARDED_BY(mutex_);
};

SoundContents& sound_contents() {
  static SoundContents contents;
  return contents;
}

class Judge {
 public:
  Judge(const Model& model, const Model* before) : model_(model), before_(before) {}

  std::vector<Fault> faults() {
    judge_routes();
    judge_listeners();
    judge_pools();
    judge_policies();
    return std::move(faults_);
  }

 private:
  template <class List>
  bool is_known(const List& list, const List Model::*where, size_t index) const {
    return before_ != nullptr && list.shares(index, before_->*where);
  }

  // Returns false if there is no room for further faults.
  bool refuse(std::string pointer, std::string detail, std::string expected = {}) {
    return add_fault(faults_, {"unusable", std::move(pointer), {}, 0, 0, std::move(detail), std::move(expected), {}});
  }

  void judge_routes() {
    for (size_t r = 0; r < model_.routes.size(); ++r) {
      if (is_known(model_.routes, &Model::routes, r)) continue;
      const Result<RouteParts> parts = parts_of(model_.routes[r]);
      if (!parts) refuse(fmt::format("/routes/{}", r), parts.error().message);
    }
  }

  void judge_listeners() {
    for (size_t l = 0; l < model_.listeners.size(); ++l) {
      const Listener& listener = model_.listeners[l];
      if (!listener.tls.enabled) continue;
      const std::string of_listener = fmt::format("{} {}", listener.tls.min_version, listener.http2);
      for (size_t c = 0; c < listener.tls.certificates.size(); ++c) {
        judge_shown(l, c, model_.certificates[listener.tls.certificates[c]], of_listener);
      }
      if (listener.tls.clients.enabled) judge_clients(l, of_listener);
    }
  }

  // A certificate that a listener shows. Each is tried alone, because a handshake chooses one.
  void judge_shown(size_t l, size_t place, const Certificate& certificate, const std::string& of_listener) {
    if (!certificate.certificate.bytes || !certificate.key.bytes) return;  // it is ordered
    const std::string content =
        fmt::format("shown {} {} {}", of_listener, certificate.certificate.hash, certificate.key.hash);
    if (sound_contents().has(content)) return;
    const std::string pointer = fmt::format("/listeners/{}/tls/certificates/{}", l, place);
    const auto identity = ServerIdentity::load({*certificate.certificate.bytes, *certificate.key.bytes});
    if (!identity) {
      refuse(pointer, fmt::format("certificate {}: {}", certificate.name, identity.error().message));
      return;
    }
    const TrialFacts facts = trial_facts(**identity);
    const std::string kind = fmt::format("kind {} {} {}", of_listener, facts.key, facts.chain_bytes / kChainStep);
    if (!sound_contents().has(kind)) {
      Listener alone = model_.listeners[l];
      alone.tls.clients = {};
      if (Result<void> tried = try_listener(alone, *identity); !tried) {
        refuse(pointer,
               fmt::format("no client can be served with certificate {}, whose key is {}, from TLS {} on: {}",
                           certificate.name, facts.key, listener_version(l), tried.error().message),
               "a key of RSA, P-256, P-384 or Ed25519");
        return;
      }
      sound_contents().add(kind);
    }
    sound_contents().add(content);
  }

  const std::string& listener_version(size_t l) const { return model_.listeners[l].tls.min_version; }

  void judge_clients(size_t l, const std::string& of_listener) {
    const ListenerClients& clients = model_.listeners[l].tls.clients;
    const std::string content =
        fmt::format("clients {} {} {} {}", of_listener, clients.optional, clients.ca.hash, clients.crl.hash);
    if (sound_contents().has(content)) return;
    // The rules for client certificates do not depend on the certificate that the listener shows. So any certificate
    // will do.
    Certificate any;
    any.order.names = {"localhost"};
    const Result<ServedCertificate> own = make_certificate(any);
    const auto identity = own ? ServerIdentity::load({*own->certificate.bytes, *own->key.bytes}) : own.error();
    const Result<void> tried = identity ? try_listener(model_.listeners[l], *identity) : identity.error();
    if (tried) return sound_contents().add(content);
    refuse(fmt::format("/listeners/{}/tls/client_certificates/ca_file", l),
           fmt::format("no client can be asked for a certificate of these authorities: {}", tried.error().message));
  }

  static Result<void> try_listener(const Listener& listener, const std::shared_ptr<const ServerIdentity>& identity) {
    TlsServerOptions options = server_options(listener);
    options.loaded.push_back(identity);
    const Result<std::shared_ptr<TlsContext>> context = TlsContext::server(options);
    return context ? try_handshake(**context) : context.error();
  }

  void judge_pools() {
    for (size_t p = 0; p < model_.pools.size(); ++p) {
      const Pool& pool = model_.pools[p];
      if (!pool.tls || is_known(model_.pools, &Model::pools, p)) continue;
      const std::string content =
          fmt::format("pool {} {} {}", pool.tls_verify, pool.tls_ca.hash, static_cast<int>(pool.protocol));
      if (sound_contents().has(content)) continue;
      const Result<std::shared_ptr<TlsContext>> context = TlsContext::client(client_options(pool));
      if (context) {
        sound_contents().add(content);
      } else {
        refuse(fmt::format("/pools/{}/tls_ca_file", p), context.error().message);
      }
    }
  }

  // What is made of each policy's text, and the authorities of a URL from which keys are fetched. With none of them no
  // key comes, and every token is refused.
  void judge_policies() {
    for (size_t p = 0; p < model_.policies.size(); ++p) {
      if (is_known(model_.policies, &Model::policies, p)) continue;
      if (const auto content = read_content(model_.policies[p]); !content) {
        refuse(fmt::format("/policies/{}", p), content.error().message);
      }
      const auto* const authenticate = model_.policies[p].part<AuthenticatePolicy>("authenticate");
      if (authenticate == nullptr || !authenticate->jwt.enabled || !authenticate->jwt.keys_ca.bytes) continue;
      const Blob& ca = authenticate->jwt.keys_ca;
      TlsClientOptions options;
      options.verify = true;
      options.ca_pem = *ca.bytes;
      const Result<std::shared_ptr<TlsContext>> context =
          ca.bytes->empty() ? fail("it is empty") : TlsContext::client(options);
      if (context) continue;
      refuse(fmt::format("/policies/{}/authenticate/jwt/keys_ca_file", p),
             fmt::format("keys_ca_file '{}' cannot be used: {}", ca.name, context.error().message),
             "certificates in PEM");
    }
  }

  const Model& model_;
  const Model* const before_;
  std::vector<Fault> faults_;
};

}  // namespace

std::vector<Fault> judge(const Model& model, const Model* before) { return Judge(model, before).faults(); }

}  // namespace tidegate::l7
