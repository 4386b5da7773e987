// SPDX-License-Identifier: Apache-2.0
// Dampening: results of a probe change the verdict only after `rise` successes or `fall` failures in a row. Pure.
#pragma once

#include <cstdint>
#include <optional>

namespace tidegate {

struct Dampener {
  std::optional<bool> up;  // the present verdict; not set before the first result
  uint32_t against = 0;    // consecutive results that contradict it
};

// Adds one result. Returns true if the verdict changed. The first result decides at once. Later results decide after
// `rise` or `fall` of them in a row. `held`: the verdict may not change yet. Results still count, so the first one
// after that time can decide.
inline bool observe(Dampener& dampener, bool success, uint32_t rise, uint32_t fall, bool held = false) {
  if (!dampener.up) {
    dampener.up = success;
    return true;
  }
  if (success == *dampener.up) {
    dampener.against = 0;
    return false;
  }
  if (dampener.against < UINT32_MAX) ++dampener.against;
  if (held || dampener.against < (success ? rise : fall)) return false;
  dampener.up = success;
  dampener.against = 0;
  return true;
}

}  // namespace tidegate
