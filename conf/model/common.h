// SPDX-License-Identifier: Apache-2.0
// Types that several kinds of the Model use.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

namespace tidegate {

// A reference to no element. Other references are indexes into a list of the Model.
constexpr uint32_t kNone = UINT32_MAX;

// Content of a file that the document names (certificate, key, zone). It is an object of the version, identified by its
// hash.
struct Blob {
  std::string name;  // the path in the document
  std::string hash;  // SHA-256, hex; equal hash means equal content, so nothing needs a rebuild
  std::shared_ptr<const std::string> bytes;
};

// What to do if no backend is usable. open: use every backend without an override. closed: refuse.
enum class AllDown : uint8_t { open, closed };

}  // namespace tidegate
