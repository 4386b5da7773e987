// SPDX-License-Identifier: Apache-2.0
#include "conf/worker_count.h"

#include <algorithm>

#include "core/usable_cores.h"

namespace tidegate {

uint32_t worker_count(uint32_t workers) {
  static const uint32_t by_cores = std::min(usable_cores(), kWorkersMost);
  return workers == 0 ? by_cores : workers;
}

}  // namespace tidegate
