// SPDX-License-Identifier: Apache-2.0
#include "control/vote/plans.h"

#include <algorithm>
#include <array>
#include <iterator>

#include "dns/plan/authority.h"
#include "l4/plan/forwarding.h"
#include "l7/plan/judge.h"

namespace tidegate {
namespace {

// The lists whose elements decide whether a plane can serve a version. The document's checks cover only their values.
constexpr std::array<std::string_view, 2> kOfDns = {"zones", "steers"};
constexpr std::array<std::string_view, 6> kOfL4 = {"nodes", "sites", "vips", "acls", "services", "pools"};
constexpr std::array<std::string_view, 5> kOfL7 = {"certificates", "listeners", "pools", "policies", "routes"};

template <size_t kCount>
bool holds(const std::array<std::string_view, kCount>& kinds, std::string_view kind) {
  return std::find(kinds.begin(), kinds.end(), kind) != kinds.end();
}

void plan_dns(const std::shared_ptr<const Model>& model, const Plans* previous, Plans& plans,
              std::vector<Fault>& faults) {
  dns::PlannedAuthority planned = dns::plan_authority(model, previous == nullptr ? nullptr : previous->dns.get());
  plans.dns = std::move(planned.authority);
  std::move(planned.faults.begin(), planned.faults.end(), std::back_inserter(faults));
}

void judge_l4(const std::shared_ptr<const Model>& model, std::vector<Fault>& faults) {
  for (Fault& fault : l4::judge(model)) add_fault(faults, std::move(fault));
}

void judge_l7(const Model& model, const Model* before, std::vector<Fault>& faults) {
  for (Fault& fault : l7::judge(model, before)) add_fault(faults, std::move(fault));
}

}  // namespace

PlannedVersion plan_version(const std::shared_ptr<const Model>& model, const Plans* previous) {
  PlannedVersion planned;
  auto plans = std::make_shared<Plans>();
  plan_dns(model, previous, *plans, planned.faults);
  judge_l4(model, planned.faults);
  judge_l7(*model, nullptr, planned.faults);
  if (planned.faults.empty()) planned.plans = std::move(plans);
  return planned;
}

PlannedVersion plan_element(const std::shared_ptr<const Model>& model, std::string_view kind, const Model& before,
                            const Plans* previous) {
  PlannedVersion planned;
  if (holds(kOfL7, kind)) judge_l7(*model, &before, planned.faults);
  if (holds(kOfL4, kind)) judge_l4(model, planned.faults);
  if (!holds(kOfDns, kind)) return planned;
  auto plans = std::make_shared<Plans>();
  plan_dns(model, previous, *plans, planned.faults);
  if (planned.faults.empty()) planned.plans = std::move(plans);
  return planned;
}

void judge(LoadedFile& loaded) {
  if (!loaded.model) return;
  loaded.faults = plan_version(loaded.model, nullptr).faults;
  place_faults(*loaded.document, loaded.faults);
  if (!loaded.faults.empty()) loaded.model = nullptr;
}

}  // namespace tidegate
