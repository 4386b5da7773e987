// SPDX-License-Identifier: Apache-2.0
// The networks of an Acl: those in its document and those in its file.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "conf/model/service.h"

namespace tidegate {

// A line of an Acl's file that names no network.
struct AclFileFault {
  uint32_t line = 0;   // 1-based
  std::string detail;  // "'10.0.0.1/8' has host bits"
};

struct AclFile {
  std::vector<Cidr> networks;         // those before the fault
  std::optional<AclFileFault> fault;  // the first one
};

// The networks of a file that has bytes, at most kMaxAclNetworks. A line has one network, blanks around it, and perhaps
// a comment that begins with '#'. Recently read files are remembered by their hash, because every version and every
// candidate has all of them again. Never null. Any thread.
std::shared_ptr<const AclFile> read_acl_file(const Blob& file);

// All networks of a valid Acl. Those of its countries are not among them.
std::vector<Cidr> networks_of(const Acl& acl);

}  // namespace tidegate
