// SPDX-License-Identifier: Apache-2.0
// A provisional version: if nobody confirms it in time, the previous version comes back. It is kept in
// <state>/provisional beside the state. Control writes the file. Planes read it: after the host went back, they serve
// the previous version.
//
// Threads: any; the file is replaced as a whole.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "core/result.h"

namespace tidegate {

struct ProvisionalVersion {
  uint64_t version = 0;
  std::string digest;       // of its manifest
  uint64_t back_to = 0;     // the version before
  uint64_t confirm_ms = 0;  // the time in which it must be confirmed
  bool went_back = false;   // this host heard nothing in time, and serves the previous version
  bool operator==(const ProvisionalVersion&) const = default;
};

// Returns nothing if there is none, or if the file cannot be read.
std::optional<ProvisionalVersion> read_provisional(const std::string& state_dir);
// The file is on the disk when this returns.
Result<void> write_provisional(const std::string& state_dir, const ProvisionalVersion& provisional);
Result<void> remove_provisional(const std::string& state_dir);

// The version that planes serve if the state's newest one is `head`.
uint64_t version_to_serve(const std::string& state_dir, uint64_t head);

}  // namespace tidegate
