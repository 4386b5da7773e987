// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <string>

#include "core/crypto.h"

namespace tidegate::l7::test {

// A directory of its own in the temporary folder. It is removed with the object.
struct StateDir {
  StateDir() { std::filesystem::create_directories(path); }
  ~StateDir() { std::filesystem::remove_all(path); }
  const std::string path = std::filesystem::temp_directory_path() / ("tidegate-l7-" + hex_encode(random_bytes(8)));
};

}  // namespace tidegate::l7::test
