// SPDX-License-Identifier: Apache-2.0
// ServedVersion: the last version that a plane served, kept in <state>/served/<plane>. A plane that cannot serve the
// version in force after its start serves that one, and the state keeps it as long as a plane names it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/result.h"

namespace tidegate {

struct ServedVersion {
  uint64_t version = 0;
  std::string digest;  // Manifest::digest
  bool operator==(const ServedVersion&) const = default;
};

// Nothing if the plane has served none yet, or the file cannot be read as one.
std::optional<ServedVersion> read_served(const std::string& state_dir, const std::string& plane);
// Whole or not at all, and on the disk when it returns.
Result<void> write_served(const std::string& state_dir, const std::string& plane, const ServedVersion& served);
// A mark from before a plane's first version is in force until it is. If the process ends meanwhile, the next one finds
// the version that it tried; 0: there is no mark. A mark that cannot be written is none.
uint64_t read_trying(const std::string& state_dir, const std::string& plane);
void mark_trying(const std::string& state_dir, const std::string& plane, uint64_t version);
void unmark_trying(const std::string& state_dir, const std::string& plane);
// The versions that any plane of this host names, in order.
std::vector<uint64_t> served_versions(const std::string& state_dir);

}  // namespace tidegate
