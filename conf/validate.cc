// SPDX-License-Identifier: Apache-2.0
#include "conf/validate.h"

#include <fmt/format.h>

#include "conf/checks.h"
#include "conf/model/policy.h"
#include "conf/model/route.h"
#include "conf/policy/kind.h"
#include "conf/text.h"
#include "core/assert.h"

namespace tidegate {
namespace {

std::string pointer_of(Way way) {
  std::string pointer;
  for (const Step& step : way) {
    pointer += '/';
    pointer += step.in_map ? escape_pointer_step(step.key) : std::to_string(step.index);
  }
  return pointer;
}

const DocumentNode* child_of(const DocumentNode& node, const Step& step) {
  if (step.in_map) return node.find(step.key);
  return node.is_list() && step.index < node.children.size() ? &node.children[step.index] : nullptr;
}

}  // namespace

Checks::Checks(const DocumentNode& root, const Model& model, FaultList& faults)
    : root_(root), model_(model), faults_(faults) {
  for (const Fault& fault : faults.faults()) faulty_.insert(fault.pointer);
  faulty_.insert(faults.marked().begin(), faults.marked().end());
}

const DocumentNode* Checks::find(Way way) const {
  const DocumentNode* node = &root_;
  for (const Step& step : way) {
    node = child_of(*node, step);
    if (node == nullptr) return nullptr;
  }
  return node;
}

bool Checks::sound(Way way) const {
  if (faulty_.empty()) return true;
  const std::string pointer = pointer_of(way);
  if (faulty_.count(pointer) != 0) return false;
  const std::string below = pointer + "/";
  const auto next = faulty_.lower_bound(below);
  return next == faulty_.end() || next->compare(0, below.size(), below) != 0;
}

void Checks::refuse(Way way, Complaint complaint) {
  const DocumentNode* node = &root_;
  for (const Step& step : way) {
    const DocumentNode* child = child_of(*node, step);
    if (child == nullptr) break;
    node = child;
  }
  faults_.at(node->line, node->column, pointer_of(way), std::move(complaint));
}

void Checks::refuse_within(Way way, size_t offset, Complaint complaint) {
  const DocumentNode* const node = find(way);
  if (node == nullptr) return refuse(way, std::move(complaint));
  faults_.within_value(*node, pointer_of(way), offset, std::move(complaint));
}

// One walk over the routes for all policies: hundreds of policies may be bound to a hundred thousand routes.
const std::vector<uint32_t>& Checks::routes_that_name(size_t policy) {
  if (routes_of_policies_.empty()) {
    routes_of_policies_.resize(model_.policies.size());
    for (uint32_t r = 0; r < model_.routes.size(); ++r) {
      for (const uint32_t named : model_.routes[r].policies) {
        if (named >= routes_of_policies_.size()) continue;  // a name without a policy is a fault of its own
        std::vector<uint32_t>& routes = routes_of_policies_[named];
        if (routes.empty() || routes.back() != r) routes.push_back(r);
      }
    }
  }
  TIDEGATE_ASSERT(policy < routes_of_policies_.size(), "the policy is one of the model");
  return routes_of_policies_[policy];
}

std::string Checks::line_of(Way way) const {
  const DocumentNode* node = find(way);
  return node == nullptr || node->line == 0 ? std::string() : fmt::format(", line {}", node->line);
}

void validate(const DocumentNode& root, const Model& model, FaultList& faults, const Model* before) {
  Checks checks(root, model, faults);
  check_nodes(checks);
  check_access_logs(checks);
  check_traffic(checks);
  check_acls(checks);
  check_addresses(checks);
  check_http(checks, before);
  check_acme(checks);
  check_ocsp(checks);
  check_policies(checks);
  check_ports(checks);
  check_probes(checks);
  check_route_conflicts(checks, before);
  check_dns(checks);
}

}  // namespace tidegate
