// SPDX-License-Identifier: Apache-2.0
// What several kinds of the Model need.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

namespace tidegate {

// In place of an index into a list of the Model: nothing is referred to.
constexpr uint32_t kNone = UINT32_MAX;

// Content of a file that the document names (certificate, key, zone). It is an object of the version, identified by its
// hash.
struct Blob {
  std::string name;  // the path in the document
  std::string hash;  // SHA-256, hex; equal hash means equal content, so nothing needs a rebuild
  std::shared_ptr<const std::string> bytes;
};

// If no backend is usable: use every backend without an override, or refuse
enum class AllDown : uint8_t { open, closed };

}  // namespace tidegate
