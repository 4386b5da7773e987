// SPDX-License-Identifier: Apache-2.0
// The folders and files of a host's state, and their permissions.
#pragma once

#include <sys/types.h>

#include <string>

#include "core/result.h"

namespace tidegate {

constexpr mode_t kStateFolderMode = 02770;  // planes run as other users of the same group
constexpr mode_t kStateLockMode = 0660;     // readers register in an environment's lock file

// An existing folder keeps its mode: the administrator may have chosen it.
Result<void> make_state_folder(const std::string& path);

// Makes the names in a folder outlast a loss of power, as fsync(2) does for the content of a file.
Result<void> sync_folder(const std::string& path);

// Gives folder/name this content. A reader always finds the old or the new content whole, also after a loss of power.
// `next` is the name of the new file until then.
Result<void> replace_file(const std::string& folder, const std::string& name, const std::string& next,
                          const std::string& content, mode_t mode);

}  // namespace tidegate
