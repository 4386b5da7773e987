// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <net/if.h>

#include "core/hash.h"
#include "l4/punt.h"

namespace tidegate::l4 {

std::string punt_device_name(const std::string& port_device) {
  constexpr size_t kMost = IFNAMSIZ - 1, kHashDigits = 4;
  const std::string name = "tg-" + port_device;
  if (name.size() <= kMost) return name;
  uint64_t hash = 0;
  for (const char c : port_device) hash = mix64(hash ^ static_cast<uint8_t>(c));
  return fmt::format("{}.{:04x}", name.substr(0, kMost - kHashDigits - 1), hash & 0xffff);
}

}  // namespace tidegate::l4
