// SPDX-License-Identifier: Apache-2.0
// ServedVersion: the last version that a plane served, kept in <state>/served/<plane>. If a plane cannot serve the
// version in force after its start, it serves this one instead. The state keeps the version as long as a plane names
// it.
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

// Returns nothing if the plane has served no version yet, or if the file cannot be read.
std::optional<ServedVersion> read_served(const std::string& state_dir, const std::string& plane);
// Replaces the file as a whole. It is on the disk when this returns.
Result<void> write_served(const std::string& state_dir, const std::string& plane, const ServedVersion& served);
// A mark that exists while a plane tries its first version. If the process ends meanwhile, the next process finds the
// version that was tried; 0: there is no mark. A mark that cannot be written is left out.
uint64_t read_trying(const std::string& state_dir, const std::string& plane);
void mark_trying(const std::string& state_dir, const std::string& plane, uint64_t version);
void unmark_trying(const std::string& state_dir, const std::string& plane);
// The versions that any plane of this host names, in order.
std::vector<uint64_t> served_versions(const std::string& state_dir);

}  // namespace tidegate
