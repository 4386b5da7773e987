// SPDX-License-Identifier: Apache-2.0
#include "l7/policy/shared_mutex.h"

#include <cerrno>

#include "core/assert.h"

namespace tidegate::l7::policy {

void SharedMutex::make() {
  pthread_mutexattr_t attributes;
  const bool made = ::pthread_mutexattr_init(&attributes) == 0 &&
                    ::pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED) == 0 &&
                    ::pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST) == 0 &&
                    ::pthread_mutex_init(&mutex_, &attributes) == 0;
  TIDEGATE_ASSERT(made, "the system has mutexes that processes share");
  ::pthread_mutexattr_destroy(&attributes);
}

// Clang cannot follow a lock by pthread's functions.
void SharedMutex::lock() TIDEGATE_NO_THREAD_CHECK {
  int error = ::pthread_mutex_lock(&mutex_);
  if (error == EOWNERDEAD) error = ::pthread_mutex_consistent(&mutex_);
  TIDEGATE_ASSERT(error == 0, "a mutex in whole memory can be locked");
}

void SharedMutex::unlock() TIDEGATE_NO_THREAD_CHECK {
  const int error = ::pthread_mutex_unlock(&mutex_);
  TIDEGATE_ASSERT(error == 0, "who unlocks a mutex has locked it");
}

}  // namespace tidegate::l7::policy
