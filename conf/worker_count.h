// SPDX-License-Identifier: Apache-2.0
// How many threads `workers` of the proxy and of the name server means on this host.
#pragma once

#include <cstdint>

namespace tidegate {

constexpr uint32_t kWorkersMost = 256;  // of one daemon

// The number itself, or for 0 (`auto`) one for each core that the process may use, at most kWorkersMost. Those are
// counted once, when the process asks first: a running daemon keeps its number. Any thread.
uint32_t worker_count(uint32_t workers);

}  // namespace tidegate
