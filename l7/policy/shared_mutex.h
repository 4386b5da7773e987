// SPDX-License-Identifier: Apache-2.0
// SharedMutex: a mutex in memory that several processes have mapped. If a process ends while it holds the mutex, the
// next one that locks it gets it. So what the mutex guards must be valid after each single store.
#pragma once

#include <pthread.h>

#include "core/mutex.h"

namespace tidegate::l7::policy {

class TIDEGATE_CAPABILITY("mutex") SharedMutex {
 public:
  // In zeroed memory, once, before another thread or process uses it.
  void make();
  void lock() TIDEGATE_ACQUIRE();
  void unlock() TIDEGATE_RELEASE();

 private:
  pthread_mutex_t mutex_;
};

class TIDEGATE_SCOPED_CAPABILITY SharedMutexLock {
 public:
  explicit SharedMutexLock(SharedMutex& mutex) TIDEGATE_ACQUIRE(mutex) : mutex_(mutex) { mutex_.lock(); }
  ~SharedMutexLock() TIDEGATE_RELEASE() { mutex_.unlock(); }
  SharedMutexLock(const SharedMutexLock&) = delete;
  SharedMutexLock& operator=(const SharedMutexLock&) = delete;

 private:
  SharedMutex& mutex_;
};

}  // namespace tidegate::l7::policy
