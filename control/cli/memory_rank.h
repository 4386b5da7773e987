// SPDX-License-Identifier: Apache-2.0
// MemoryRank: whom the kernel ends first if memory is short (oom_score_adj of proc(5)). A supervisor holds all daemons,
// and without the forwarder and the name server nobody finds the others, so these end last. Nothing is as large as a
// proxy, and it comes back with its cache. Without the privilege to end later than others, nothing changes.
#pragma once

#include <string>

namespace tidegate::cli {

class MemoryRank {
 public:
  MemoryRank();  // reads this process's rank
  // Lets this process end last, and the children that it starts from then on.
  void raise() const;
  // Called in a child: a plane that need not end last has the rank again that its parent had at first.
  void settle(const std::string& plane) const;

 private:
  int usual_ = 0;
};

}  // namespace tidegate::cli
