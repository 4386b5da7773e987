// SPDX-License-Identifier: Apache-2.0
#include "core/assert.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include <unistd.h>

namespace tidegate {

void assertion_failed(const char* file, int line, const char* condition, const char* message) noexcept {
  char text[512];
  int bytes = std::snprintf(text, sizeof text, "%s:%d: %s (%s)\n", file, line, message, condition);
  if (bytes > static_cast<int>(sizeof text) - 1) bytes = static_cast<int>(sizeof text) - 1;
  if (bytes > 0 && write(STDERR_FILENO, text, static_cast<size_t>(bytes)) < 0) std::abort();
  std::abort();
}

}  // namespace tidegate
