// SPDX-License-Identifier: Apache-2.0
#include "l4/plan/list_cache.h"

#include <algorithm>

#include "conf/acl.h"
#include "conf/model/service.h"
#include "core/crypto.h"
#include "core/mutex.h"
#include "l4/plan/source_lists.h"

namespace tidegate::l4 {
namespace {

bool same_lists(const Elements<Acl>& a, const Elements<Acl>& b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    const bool same = a.shares(i, b) || (a[i].file.hash == b[i].file.hash && a[i].countries == b[i].countries &&
                                         a[i].networks == b[i].networks);
    if (!same) return false;
  }
  return true;
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

// The lists that were judged last without a fault, so that a change of other elements does not compile them again. Any
// thread.
class SoundLists {
 public:
  bool are(const Elements<Acl>& lists) {
    const MutexLock lock(mutex_);
    return same_lists(lists, lists_);
  }
  void set(const Elements<Acl>& lists) {
    const MutexLock lock(mutex_);
    lists_ = lists;
  }

 private:
  Mutex mutex_;
  Elements<Acl> lists_ TIDEGATE_GUARDED_BY(mutex_);
};

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
  if (compiled_ && countries == countries_ && (model == model_ || same_lists(model->acls, model_->acls))) {
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

void judge_lists(const Model& model, std::vector<Fault>& faults) {
  static SoundLists sound;
  if (model.acls.empty() || sound.are(model.acls)) return;
  std::vector<std::vector<Cidr>> lists;
  size_t networks = 0;
  for (const Acl& acl : model.acls) networks += lists.emplace_back(networks_of(acl)).size();
  // Each network makes at most one set, beside the empty one.
  if (networks >= SourceLists::kMostSets) {
    if (const auto built = SourceLists::build(lists); !built) {
      add_fault(faults, {"too_many_networks", "/acls", {}, 0, 0, built.error().message, {}, {}});
      return;
    }
  }
  sound.set(model.acls);
}

}  // namespace tidegate::l4
