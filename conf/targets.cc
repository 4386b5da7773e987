// SPDX-License-Identifier: Apache-2.0
#include "conf/model.h"
#include "conf/model/pool.h"
#include "conf/model/site.h"
#include "conf/model/steer.h"

namespace tidegate {

std::string target_label(const Model& model, const SteerTarget& target) {
  const auto without_dot = [](const std::string& name) { return name.substr(0, name.size() - 1); };
  if (target.vip() != kNone) return "vip:" + model.vips[target.vip()].name;
  if (target.pool() != kNone) return "pool:" + model.pools[target.pool()].name;
  if (target.steer() != kNone) return "steer:" + without_dot(model.steers[target.steer()].name);
  if (const auto* alias = std::get_if<TargetAlias>(&target.what)) return "alias:" + without_dot(alias->name);
  return {};
}

}  // namespace tidegate
