// SPDX-License-Identifier: Apache-2.0
// An access log of a test, and its lines.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/crypto.h"

namespace tidegate::l7::test {

// A file for an access log, which is removed after the test.
struct LogFile {
  ~LogFile() { std::filesystem::remove_all(path); }
  // Each must be JSON.
  std::vector<nlohmann::json> lines() const {
    std::vector<nlohmann::json> out;
    std::ifstream file(path);
    for (std::string line; std::getline(file, line);) {
      out.push_back(nlohmann::json::parse(line, nullptr, false));
      EXPECT_FALSE(out.back().is_discarded()) << line.substr(0, 400);
    }
    return out;
  }
  const std::string path = std::filesystem::temp_directory_path() / ("tidegate-fields-" + hex_encode(random_bytes(8)));
};

}  // namespace tidegate::l7::test
