// SPDX-License-Identifier: Apache-2.0
#include "l7/plan.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/crypto.h"
#include "core/tls_acme.h"
#include "core/tls_clients.h"

namespace tidegate::l7 {

namespace {

// Routes with the same pool and labels share one subset.
void make_subsets(Plan& plan, RuntimeRegistry& registry) {
  const Model& model = plan.model();
  std::map<std::pair<uint32_t, std::vector<std::string>>, uint32_t> known;
  plan.subset_of_route.assign(model.routes.size(), kNone);
  for (size_t r = 0; r < model.routes.size(); ++r) {
    const Route& route = model.routes[r];
    if (route.pool() == kNone || route.labels.empty()) continue;
    std::vector<std::string> labels = route.labels;
    std::sort(labels.begin(), labels.end());
    const auto [entry, is_new] =
        known.emplace(std::pair(route.pool(), labels), static_cast<uint32_t>(plan.subsets.size()));
    plan.subset_of_route[r] = entry->second;
    if (!is_new) continue;
    plan.subsets.emplace_back(*plan.snapshot, route.pool(), registry, plan.hash_key,
                              BackendPool::Shape{plan.this_node().site, labels, plan.names.get()});
  }
}

// The numbers of these names. Numbers of the previous plan are used if the name at that place is the same, so that the
// change of one element does not cost a lookup of each.
template <class List>
std::vector<uint32_t> numbers_of_names(const List& elements, const List* before,
                                       const std::vector<uint32_t>& numbers_before, NameIds& names) {
  std::vector<uint32_t> numbers;
  numbers.reserve(elements.size());
  for (size_t i = 0; i < elements.size(); ++i) {
    const bool same = before != nullptr && i < before->size() && (*before)[i].name == elements[i].name;
    numbers.push_back(same ? numbers_before[i] : names.id(elements[i].name));
  }
  return numbers;
}

void number_names(Plan& plan, const Plan* previous, NameIds& names) {
  static const std::vector<uint32_t> kNothing;
  const Model* const before = previous == nullptr ? nullptr : &previous->model();
  const Model& model = plan.model();
  plan.route_names = numbers_of_names(model.routes, before == nullptr ? nullptr : &before->routes,
                                      before == nullptr ? kNothing : previous->route_names, names);
  plan.listener_names = numbers_of_names(model.listeners, before == nullptr ? nullptr : &before->listeners,
                                         before == nullptr ? kNothing : previous->listener_names, names);
  plan.policies.number_names(names);
}

Error certificate_failed(const Plan& plan, uint32_t index, const Error& why) {
  return fail(fmt::format("certificate {}: {}", plan.model().certificates[index].name, why.message));
}

}  // namespace

std::shared_ptr<const Plan> make_plan(const PlanInputs& inputs, const Plan* previous, RuntimeRegistry& registry) {
  auto plan = std::make_shared<Plan>();
  plan->snapshot = inputs.snapshot;
  plan->sequence = previous == nullptr ? 1 : previous->sequence + 1;
  plan->node = inputs.node;
  plan->hash_key = inputs.hash_key;
  plan->names = inputs.names;
  const Model& model = plan->model();
  const bool same_model = previous != nullptr && previous->snapshot->configured == inputs.snapshot->configured;
  plan->router = same_model ? previous->router
                            : std::make_shared<const Router>(inputs.snapshot->configured, inputs.router_key,
                                                             previous == nullptr ? nullptr : previous->router.get());
  const uint32_t site = plan->this_node().site;
  plan->pools.reserve(model.pools.size());
  for (uint32_t i = 0; i < model.pools.size(); ++i) {
    plan->pools.emplace_back(*plan->snapshot, i, registry, plan->hash_key,
                             BackendPool::Shape{site, {}, plan->names.get()});
    const PoolStatus& status = plan->snapshot->pools[i];
    for (const BackendPool::Server& server : plan->pools[i].servers()) {
      if (status.backends[server.index].taken_down) plan->taken_down.push_back(server.runtime);
    }
  }
  make_subsets(*plan, registry);
  policy::Registry fresh;
  plan->policies = policy::Policies(model, *plan->snapshot->live_state, inputs.hash_key,
                                    inputs.policies == nullptr ? fresh : *inputs.policies);
  number_names(*plan, previous, registry.names());
  plan->certificates = served_certificates(*plan->snapshot, previous == nullptr ? nullptr : &previous->model(),
                                           previous == nullptr ? nullptr : &previous->certificates);
  plan->acme_identities =
      acme_identities(*plan->snapshot->live_state, previous == nullptr ? nullptr : &previous->acme_identities);
  plan->acme_answers = acme_answers(*plan->snapshot->live_state);
  for (uint32_t i = 0; i < model.listeners.size(); ++i) {
    if (model.listeners[i].site == kNone || model.listeners[i].site == site) plan->listeners.push_back(i);
  }
  return plan;
}

std::string Plan::digest() const {
  std::string text = snapshot->version_digest;
  for (const BackendPool& pool : pools) {
    text += fmt::format("\n{}", pool.config().name);
    for (const PoolMember& member : pool.members()) text += fmt::format(" {}={}", member.name, member.weight);
  }
  return sha256_hex(text);
}

uint64_t hash_for_pool(const Plan& plan, const Pool& pool, const RequestHead& request, std::string_view client) {
  constexpr std::string_view kHeader = "header:";
  if (pool.hash_on == "path") return siphash13(plan.hash_key, request.path);
  if (pool.hash_on.starts_with(kHeader)) {
    const std::string_view wanted = std::string_view(pool.hash_on).substr(kHeader.size());
    for (const Field& field : request.fields) {
      if (http1::equals_ignore_case(field.name, wanted)) return siphash13(plan.hash_key, field.value);
    }
  }
  // Used also if the named field is absent: then requests of the same client stay together.
  return siphash13(plan.hash_key, client);
}

Result<TlsContexts::Set> TlsContexts::prepare(const Plan& plan) {
  const Model& model = plan.model();
  Known next;
  Set set;
  set.listeners.resize(model.listeners.size());
  for (const uint32_t index : plan.listeners) {
    const Listener& listener = model.listeners[index];
    if (!listener.tls.enabled) continue;
    Result<std::shared_ptr<TlsContext>> context = for_listener(plan, listener, next);
    if (!context) return fail(fmt::format("listener {}: {}", listener.name, context.error().message));
    set.listeners[index] = std::move(*context);
  }
  set.pools.resize(model.pools.size());
  for (size_t i = 0; i < model.pools.size(); ++i) {
    if (!model.pools[i].tls) continue;
    Result<std::shared_ptr<TlsContext>> context = for_pool(plan, model.pools[i], next);
    if (!context) return fail(fmt::format("pool {}: {}", model.pools[i].name, context.error().message));
    set.pools[i] = std::move(*context);
  }
  keep_staples(next);
  known_ = std::move(next);
  return set;
}

// An identity that is still used and has shown a staple must be told that it shows none now.
void TlsContexts::keep_staples(Known& next) const {
  if (known_.staples.empty()) return;
  for (const auto& [content, identity] : next.identities) {
    if (known_.staples.contains(identity)) next.staples.emplace(identity, nullptr);
  }
}

Result<std::shared_ptr<TlsContext>> TlsContexts::for_listener(const Plan& plan, const Listener& listener, Known& next) {
  std::string made_of = fmt::format("listener {} {}", listener.tls.min_version, listener.http2);
  TlsServerOptions options;
  for (const uint32_t index : listener.tls.certificates) {
    const ServedCertificate& certificate = plan.certificates[index];
    made_of += fmt::format(" {} {}", certificate.certificate.hash, certificate.key.hash);
    Result<std::shared_ptr<const ServerIdentity>> identity = identity_of(certificate, next);
    if (!identity) return certificate_failed(plan, index, identity.error());
    if (certificate.staple) next.staples[*identity] = certificate.staple;
    options.loaded.push_back(*std::move(identity));
  }
  const ListenerClients& clients = listener.tls.clients;
  if (clients.enabled) made_of += fmt::format(" clients {} {} {}", clients.optional, clients.ca.hash, clients.crl.hash);
  for (const AcmeIdentity& identity : plan.acme_identities) made_of += " " + identity.proof;
  std::shared_ptr<TlsContext>& entry = next.contexts[made_of];
  if (const auto known = known_.contexts.find(made_of); known != known_.contexts.end()) entry = known->second;
  if (entry) return entry;
  if (listener.http2) options.alpn.emplace_back("h2");
  options.alpn.emplace_back("http/1.1");
  options.min_version = listener.tls.min_version;
  options.tickets = tickets_;
  if (clients.enabled) {
    options.clients = std::make_shared<const TlsClientRules>(
        TlsClientRules{clients.ca.bytes ? *clients.ca.bytes : std::string(),
                       clients.crl.bytes ? *clients.crl.bytes : std::string(), clients.optional});
  }
  Result<std::shared_ptr<TlsContext>> context = TlsContext::server(options);
  if (context && !plan.acme_identities.empty()) {
    Result<std::shared_ptr<TlsContext>> acme = for_authorities(plan);
    if (!acme) return acme;
    context = with_acme(*std::move(context), *std::move(acme));
  }
  if (context) entry = *context;
  return context;
}

Result<std::shared_ptr<TlsContext>> TlsContexts::for_authorities(const Plan& plan) {
  TlsServerOptions options;
  for (const AcmeIdentity& identity : plan.acme_identities) options.identities.push_back(identity.identity);
  options.alpn.emplace_back(kAcmeTlsProtocol);
  return TlsContext::server(options);
}

Result<std::shared_ptr<const ServerIdentity>> TlsContexts::identity_of(const ServedCertificate& certificate,
                                                                       Known& next) {
  const std::string content = certificate.certificate.hash + certificate.key.hash;
  std::shared_ptr<const ServerIdentity>& entry = next.identities[content];
  if (const auto known = known_.identities.find(content); known != known_.identities.end()) entry = known->second;
  if (entry) return entry;
  ++identities_read_;
  if (!certificate.certificate.bytes || !certificate.key.bytes) return fail("there is none");
  Result<std::shared_ptr<const ServerIdentity>> loaded =
      ServerIdentity::load({*certificate.certificate.bytes, *certificate.key.bytes});
  if (loaded) entry = *loaded;
  return loaded;
}

Result<std::shared_ptr<TlsContext>> TlsContexts::for_pool(const Plan& plan, const Pool& pool, Known& next) {
  std::string made_of =
      fmt::format("pool {} {} {}", pool.tls_verify, pool.tls_ca.hash, static_cast<int>(pool.protocol));
  std::shared_ptr<const ServerIdentity> own;
  if (pool.tls_certificate != kNone) {
    const ServedCertificate& certificate = plan.certificates[pool.tls_certificate];
    made_of += fmt::format(" {} {}", certificate.certificate.hash, certificate.key.hash);
    Result<std::shared_ptr<const ServerIdentity>> identity = identity_of(certificate, next);
    if (!identity) return certificate_failed(plan, pool.tls_certificate, identity.error());
    own = *std::move(identity);
  }
  std::shared_ptr<TlsContext>& entry = next.contexts[made_of];
  if (const auto known = known_.contexts.find(made_of); known != known_.contexts.end()) entry = known->second;
  if (entry) return entry;
  TlsClientOptions options;
  options.identity = std::move(own);
  if (pool.protocol != BackendProtocol::h1) options.alpn.emplace_back("h2");
  if (pool.protocol != BackendProtocol::h2) options.alpn.emplace_back("http/1.1");
  options.verify = pool.tls_verify;
  if (pool.tls_ca.bytes) options.ca_pem = *pool.tls_ca.bytes;
  Result<std::shared_ptr<TlsContext>> context = TlsContext::client(options);
  if (context) entry = *context;
  return context;
}

}  // namespace tidegate::l7
