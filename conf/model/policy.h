// SPDX-License-Identifier: Apache-2.0
// Policies in the Model: a policy is a named bundle of parts. Each kind of part (conf/policy/kinds.def) has its own
// struct in conf/policy, and only sources that need it include it.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>

namespace tidegate {

struct PolicyPart {
  PolicyPart() = default;
  PolicyPart(const PolicyPart&) = default;
  PolicyPart& operator=(const PolicyPart&) = default;
  virtual ~PolicyPart() = default;
};

struct Policy {
  std::string name;
  bool everywhere = false;  // holds for every request of every listener, without being named
  // By the key of the kind ("limit"). A loaded part is never changed, so copies of a Model share it.
  std::map<std::string_view, std::shared_ptr<const PolicyPart>> parts;

  // Null: the policy has no such part.
  template <class Part>
  const Part* part(std::string_view kind) const {
    const auto found = parts.find(kind);
    return found == parts.end() ? nullptr : static_cast<const Part*>(found->second.get());
  }
};

}  // namespace tidegate
