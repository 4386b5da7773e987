// SPDX-License-Identifier: Apache-2.0
// What happens when LMDB meets damage at run time. LMDB maps its file and trusts the content. A page that cannot be
// read (the file was cut off, or the disk fails) ends the process by SIGBUS; a garbled page ends it by an assertion.
// Then one line on stderr names the environment, and the mark kMark stays in its directory. The next start finds it.
#pragma once

#include <lmdb.h>

#include <string>

namespace tidegate::lmdb {

constexpr const char* kMark = "/damaged";

// Watches an environment until unwatch(). At most kMaxWatched can be watched at a time; a fault in any other ends the
// process without a message. The first call installs a SIGBUS handler. A SIGBUS elsewhere ends the process as usual.
// Any thread.
constexpr size_t kMaxWatched = 16;
void watch(MDB_env* env, const std::string& directory);
void unwatch(MDB_env* env);

// For an environment that its process does not need (a cache). If LMDB fails an assertion within an operation of Txn or
// Cursor, that operation returns an Error and the mark stays. From then on every transaction that would begin in this
// environment fails.
void do_without_when_garbled(MDB_env* env);

// Thrown through LMDB's frames in that case, if a Survivor exists on this thread. LMDB's state must not be used again:
// a write transaction is neither committed nor aborted, and the environment is not closed.
struct Garbled {};
class Survivor {
 public:
  Survivor();
  ~Survivor();
  Survivor(const Survivor&) = delete;
  Survivor& operator=(const Survivor&) = delete;
};

}  // namespace tidegate::lmdb
