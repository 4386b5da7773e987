// SPDX-License-Identifier: Apache-2.0
// Counts what a thread allocates, for tests of hot paths. It needs a sanitizer, which offers a hook; without one,
// can_count() is false.
#pragma once

#include <cstddef>

extern "C" int __sanitizer_install_malloc_and_free_hooks(void (*allocated)(const volatile void*, size_t),
                                                         void (*freed)(const volatile void*)) __attribute__((weak));

namespace tidegate::test {

class Allocations {
 public:
  static bool can_count() {
    if (__sanitizer_install_malloc_and_free_hooks == nullptr) return false;
    static const bool installed = __sanitizer_install_malloc_and_free_hooks(&note, &ignore) != 0;
    return installed;
  }
  Allocations() : before_(count_) {}
  // By this thread, since the object was made.
  size_t count() const { return count_ - before_; }

 private:
  static void note(const volatile void*, size_t) { ++count_; }
  static void ignore(const volatile void*) {}
  static inline thread_local size_t count_ = 0;
  const size_t before_;
};

}  // namespace tidegate::test
