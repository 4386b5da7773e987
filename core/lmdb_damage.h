// SPDX-License-Identifier: Apache-2.0
// What happens when LMDB meets damage at run time. LMDB maps its file and trusts the content. A page that cannot be
// read (the file was cut off, or the disk fails) raises SIGBUS. A garbled page fails an assertion, or leads LMDB out of
// the map: SIGSEGV. One line on stderr then names the environment, and the mark kMark stays in its directory for the
// next start.
//
// The lock file is mapped too, and LMDB touches it in every transaction. If somebody cuts it off (a copy over a live
// directory does), the handler puts empty memory in its place: no process ends. Then the registers of readers and of
// the writer are lost. So every new transaction is an Error (is_lock_lost()) until all processes have closed the
// environment.
//
// An environment that the process needs ends the process then. An expendable one (a cache) does not: the operation
// under way fails, and the environment is not used any more.
#pragma once

#include <lmdb.h>

#include <csetjmp>
#include <string>

namespace tidegate::lmdb {

constexpr const char* kMark = "/damaged";

// Watches an environment until unwatch(). At most kMaxWatched can be watched at a time; a fault in any other ends the
// process without a message. The first call installs handlers for SIGBUS and SIGSEGV. A fault elsewhere ends the
// process as usual. Any thread.
constexpr size_t kMaxWatched = 16;
void watch(MDB_env* env, const std::string& directory, bool expendable);
void unwatch(MDB_env* env);
// Logs that an expendable environment is not used any more, and leaves the mark. Does so once.
void tell_abandoned(MDB_env* env);

// Whether the lock file was cut off under this watched environment.
bool is_lock_lost(const MDB_env* env);

// Return codes of guarded(), in addition to LMDB's own codes.
constexpr int kAssertionFailed = -30'000;  // LMDB failed an assertion
constexpr int kFaulted = -30'001;          // a fault within LMDB or its map

// Whether a jump out of the handler must restore the signal mask, which costs guarded() a system call. The handler
// blocks no signal. But ThreadSanitizer calls the handler from a handler of its own, which blocks all signals.
#if defined(__SANITIZE_THREAD__)
constexpr int kRestoreMask = 1;
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
constexpr int kRestoreMask = 1;
#else
constexpr int kRestoreMask = 0;
#endif
#else
constexpr int kRestoreMask = 0;
#endif

// One guarded call on this thread.
struct Guard {
  sigjmp_buf back;
  MDB_env* env;     // expendable; null: a fault ends the process
  bool reads_only;  // LMDB holds no lock and changes no memory, so every fault may become a return code
  Guard* outer;
};
extern constinit thread_local Guard* innermost_guard;
// Thrown through LMDB's frames when it fails an assertion. LMDB is C compiled with unwind tables.
struct Garbled {};

// Runs `call`, which returns an int. A failed assertion, or a fault if `env` is set, becomes a return code. LMDB's
// state must not be used again then: a write transaction is neither committed nor aborted, and the environment is not
// closed. `call` must leave nothing to destroy or unlock: a fault jumps out of it. While LMDB writes, only a fault in
// the map or in LMDB's own code becomes a return code, never one within malloc.
template <class Call>
int guarded(MDB_env* env, bool reads_only, Call&& call) {
  Guard guard;
  guard.env = env;
  guard.reads_only = reads_only;
  guard.outer = innermost_guard;
  int result = kFaulted;
  if (env == nullptr || sigsetjmp(guard.back, kRestoreMask) == 0) {
    innermost_guard = &guard;
    try {
      result = call();
    } catch (const Garbled&) {
      result = kAssertionFailed;
    }
  }
  innermost_guard = guard.outer;
  return result;
}

}  // namespace tidegate::lmdb
