// SPDX-License-Identifier: Apache-2.0
// Mutex and MutexLock: std::mutex with clang's thread-safety annotations. libstdc++'s own mutex carries none, so clang
// could not check which lock guards which member. With another compiler the annotations are empty.
//
//   Mutex mutex_;
//   int count_ TIDEGATE_GUARDED_BY(mutex_) = 0;
//   void add() TIDEGATE_REQUIRES(mutex_);
#pragma once

#include <condition_variable>
#include <mutex>

#if defined(__clang__)
#define TIDEGATE_THREAD_ANNOTATION(x) __attribute__((x))
#else
#define TIDEGATE_THREAD_ANNOTATION(x)
#endif

#define TIDEGATE_CAPABILITY(name) TIDEGATE_THREAD_ANNOTATION(capability(name))
#define TIDEGATE_SCOPED_CAPABILITY TIDEGATE_THREAD_ANNOTATION(scoped_lockable)
#define TIDEGATE_GUARDED_BY(mutex) TIDEGATE_THREAD_ANNOTATION(guarded_by(mutex))
#define TIDEGATE_REQUIRES(...) TIDEGATE_THREAD_ANNOTATION(requires_capability(__VA_ARGS__))
#define TIDEGATE_EXCLUDES(...) TIDEGATE_THREAD_ANNOTATION(locks_excluded(__VA_ARGS__))
#define TIDEGATE_ACQUIRE(...) TIDEGATE_THREAD_ANNOTATION(acquire_capability(__VA_ARGS__))
#define TIDEGATE_TRY_ACQUIRE(...) TIDEGATE_THREAD_ANNOTATION(try_acquire_capability(__VA_ARGS__))
#define TIDEGATE_RELEASE(...) TIDEGATE_THREAD_ANNOTATION(release_capability(__VA_ARGS__))
#define TIDEGATE_RETURN_CAPABILITY(mutex) TIDEGATE_THREAD_ANNOTATION(lock_returned(mutex))
// For a function whose locking clang cannot follow. Say why in a comment.
#define TIDEGATE_NO_THREAD_CHECK TIDEGATE_THREAD_ANNOTATION(no_thread_safety_analysis)

namespace tidegate {

class TIDEGATE_CAPABILITY("mutex") Mutex {
 public:
  void lock() TIDEGATE_ACQUIRE() { mutex_.lock(); }
  bool try_lock() TIDEGATE_TRY_ACQUIRE(true) { return mutex_.try_lock(); }
  void unlock() TIDEGATE_RELEASE() { mutex_.unlock(); }

 private:
  std::mutex mutex_;
};

// Holds a Mutex until it is destroyed. It may be unlocked and locked again in between, like a std::unique_lock.
class TIDEGATE_SCOPED_CAPABILITY MutexLock {
 public:
  explicit MutexLock(Mutex& mutex) TIDEGATE_ACQUIRE(mutex) : mutex_(mutex) { mutex_.lock(); }
  ~MutexLock() TIDEGATE_RELEASE() {
    if (held_) mutex_.unlock();
  }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

  void lock() TIDEGATE_ACQUIRE() {
    mutex_.lock();
    held_ = true;
  }
  void unlock() TIDEGATE_RELEASE() {
    held_ = false;
    mutex_.unlock();
  }

 private:
  Mutex& mutex_;
  bool held_ = true;
};

// A std::condition_variable for Mutex. The caller must hold the lock, as for any std::condition_variable_any.
using MutexCondition = std::condition_variable_any;

}  // namespace tidegate
