// SPDX-License-Identifier: Apache-2.0
// DocumentNode: one value of a configuration document as it was written, with its place. It is a plain tree that owns
// its text.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "conf/limits.h"

namespace tidegate {

// Most different words of the same length differ in their first byte.
inline bool same_word(std::string_view a, std::string_view b) {
  return a.size() == b.size() && (a.empty() || (a.front() == b.front() && a == b));
}

struct DocumentNode {
  enum class Kind : uint8_t { null, scalar, list, map };

  Kind kind = Kind::null;
  bool quoted = false;                    // a scalar in quotes: it is text, whatever it looks like
  uint32_t line = 0, column = 0;          // of the value; 1-based, columns in bytes; 0 when it came from JSON
  uint32_t key_line = 0, key_column = 0;  // of the key, in a map
  std::string key;                        // in a map
  std::string text;                       // of a scalar
  std::vector<DocumentNode> children;     // of a list or map, in the order written

  bool is_map() const { return kind == Kind::map; }
  bool is_list() const { return kind == Kind::list; }
  bool is_scalar() const { return kind == Kind::scalar; }

  // The value of the map's key `wanted`, or null.
  const DocumentNode* find(std::string_view wanted) const {
    if (!is_map()) return nullptr;
    for (const DocumentNode& child : children) {
      if (same_word(child.key, wanted)) return &child;
    }
    return nullptr;
  }
};

}  // namespace tidegate
