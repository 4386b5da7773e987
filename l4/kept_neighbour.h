// SPDX-License-Identifier: Apache-2.0
// KeptNeighbour: one resolved neighbour in the memory that outlives the process. The first worker writes the records,
// each at the index of its NeighbourId. A successor reads them once, before its workers start, and finds a neighbour by
// its address. A record that a killed process wrote only in part fails its check.
#pragma once

#include <cstdint>

#include "core/hash.h"
#include "l4/wire.h"

namespace tidegate::l4 {

struct KeptNeighbour {
  uint64_t check = 0;
  uint32_t learned_ms = 0;  // on the clock of the workers
  uint16_t port = 0;        // index of the forwarder's port
  uint8_t family = 0;       // 4 or 6; 0: the record is empty
  uint8_t mac[6] = {};
  uint8_t address[16] = {};
  uint8_t unused[3] = {};  // no byte of the record is padding, because the check covers all of them

  uint64_t expected_check() const {
    return siphash13(HashKey{}, reinterpret_cast<const uint8_t*>(this) + sizeof check, sizeof *this - sizeof check);
  }
  bool is_whole() const { return (family == 4 || family == 6) && check == expected_check(); }
};
static_assert(sizeof(KeptNeighbour) == 40);

}  // namespace tidegate::l4
