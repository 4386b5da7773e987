// SPDX-License-Identifier: Apache-2.0
#include "l4/plan/list_cache.h"

#include <algorithm>

#include "conf/acl.h"
#include "conf/model/service.h"
#include "core/crypto.h"

namespace tidegate::l4 {
namespace {

bool same_lists(const Model& a, const Model& b) {
  return std::equal(a.acls.begin(), a.acls.end(), b.acls.begin(), b.acls.end(), [](const Acl& x, const Acl& y) {
    return x.file.hash == y.file.hash && x.countries == y.countries && x.networks == y.networks;
  });
}

std::vector<Cidr> all_networks_of(const Acl& acl, const CountryNetworks* countries) {
  std::vector<Cidr> networks = networks_of(acl);
  if (countries == nullptr) return networks;
  for (const std::string& country : acl.countries) {
    const auto known = countries->find(country);
    if (known != countries->end()) networks.insert(networks.end(), known->second.begin(), known->second.end());
  }
  return networks;
}

std::string digest_of(const std::vector<std::vector<Cidr>>& lists) {
  std::string bytes;
  for (const std::vector<Cidr>& list : lists) {
    bytes += "list";
    for (const Cidr& each : list) {
      bytes.append(reinterpret_cast<const char*>(each.base.bytes.data()), each.base.size());
      bytes += static_cast<char>(each.prefix);
    }
  }
  return sha256_hex(bytes);
}

}  // namespace

Result<std::shared_ptr<const ListCache::Compiled>> ListCache::compile(
    const std::shared_ptr<const Model>& model, const std::shared_ptr<const CountryNetworks>& countries) {
  if (model->acls.empty()) return std::shared_ptr<const Compiled>();
  if (compiled_ && countries == countries_ && (model == model_ || same_lists(*model, *model_))) {
    model_ = model;
    return compiled_;
  }
  std::vector<std::vector<Cidr>> lists;
  for (const Acl& acl : model->acls) lists.push_back(all_networks_of(acl, countries.get()));
  Result<std::shared_ptr<const SourceLists>> built = SourceLists::build(lists);
  if (!built) return built.error();
  auto compiled = std::make_shared<Compiled>();
  compiled->lists = *std::move(built);
  compiled->digest = digest_of(lists);
  compiled_ = std::move(compiled);
  model_ = model;
  countries_ = countries;
  return compiled_;
}

}  // namespace tidegate::l4
