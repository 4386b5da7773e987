// SPDX-License-Identifier: Apache-2.0
// Tells a full disk from other faults of an LMDB environment.
#pragma once

#include <string>

namespace tidegate {

// Whether `message`, the error of a failed write to the environment in `directory`, means that its disk or its map is
// full. LMDB returns EIO for a write that was cut short. In that case the free space of the file system decides.
bool disk_is_full(const std::string& message, const std::string& directory);

}  // namespace tidegate
