// SPDX-License-Identifier: Apache-2.0
#include "l7/plan/known_clients.h"

#include <utility>

#include "core/crypto.h"

namespace tidegate::l7 {
namespace {

void add_client(KnownClients& clients, std::string key, const KnownClient& client) {
  const auto [entry, is_new] = clients.emplace(std::move(key), Known{client.name, client.hash, client.roles, {}});
  if (is_new) entry->second.role_views.assign(entry->second.roles.begin(), entry->second.roles.end());
}

}  // namespace

std::shared_ptr<const KnownClients> known_by_key(const ApiKeys& keys) {
  auto clients = std::make_shared<KnownClients>();
  for (const KnownClient& key : keys.keys) add_client(*clients, hex_decode(key.hash).value_or(""), key);
  return clients;
}

std::shared_ptr<const KnownClients> known_by_name(const BasicUsers& users) {
  auto clients = std::make_shared<KnownClients>();
  for (const KnownClient& user : users.users) add_client(*clients, user.name, user);
  return clients;
}

std::shared_ptr<const Signers> known_signers(const SignatureRules& rules, const std::vector<Jwk>& keys) {
  auto signers = std::make_shared<Signers>();
  for (const Jwk& key : keys) {
    if (key.type != Jwk::Type::secret) continue;
    Signer& signer = (*signers)[key.id];
    signer.secrets.push_back(key.secret);
    signer.known.name = key.id;
  }
  for (const SigningClient& client : rules.clients) {
    const auto found = signers->find(client.name);
    if (found != signers->end()) found->second.known.roles = client.roles;
  }
  for (auto& [id, signer] : *signers)
    signer.known.role_views.assign(signer.known.roles.begin(), signer.known.roles.end());
  return signers;
}

}  // namespace tidegate::l7
