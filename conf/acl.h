// SPDX-License-Identifier: Apache-2.0
// The networks of an Acl: those that its document names, and those of its file.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "conf/model.h"

namespace tidegate {

// A line of an Acl's file that names no network.
struct AclFileFault {
  uint32_t line = 0;   // 1-based
  std::string detail;  // "'10.0.0.1/8' has host bits"
};

// Appends the networks of a file: one a line, blanks around it, nothing else but comments from '#' on. Reads at most
// `most` of them. Returns the first fault.
std::optional<AclFileFault> read_acl_file(std::string_view text, size_t most, std::vector<Cidr>& networks);

// All networks of a valid Acl. Those of its countries are not among them.
std::vector<Cidr> networks_of(const Acl& acl);

}  // namespace tidegate
