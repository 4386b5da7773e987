// SPDX-License-Identifier: Apache-2.0
// MemoryRank: which process the kernel ends first if memory is short (oom_score_adj of proc(5)). The supervisor, the
// forwarder and the name server end last: without the supervisor all daemons end, and without the other two no client
// finds the rest. The proxy is the largest process, and it comes back with its cache. Without the privilege to lower
// the value, nothing changes.
#pragma once

#include <string>

namespace tidegate::cli {

class MemoryRank {
 public:
  MemoryRank();  // reads this process's rank
  // Lets this process end last, and also the children that it starts after this call.
  void raise() const;
  // Called in a child: a plane that need not end last gets the original rank of its parent.
  void settle(const std::string& plane) const;

 private:
  int usual_ = 0;
};

}  // namespace tidegate::cli
