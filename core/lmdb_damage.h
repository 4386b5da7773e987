// SPDX-License-Identifier: Apache-2.0
// What is said and left behind when LMDB meets damage at runtime. It maps its file and trusts what is in it: a page
// that cannot be read (the file was cut off, the disk fails) ends the process by SIGBUS, a garbled one by an assertion.
// Then one line on stderr names the environment, and the mark kMark stays in its directory for the next start to find.
#pragma once

#include <lmdb.h>

#include <string>

namespace tidegate::lmdb {

constexpr const char* kMark = "/damaged";

// Watches over an environment until unwatched; at most kMaxWatched at a time, further ones die without a word. The
// first call takes SIGBUS over; one that strikes elsewhere ends the process as if it had not. Any thread.
constexpr size_t kMaxWatched = 16;
void watch(MDB_env* env, const std::string& directory);
void unwatch(MDB_env* env);

// For an environment that its process can do without (a cache): an assertion that LMDB fails within an operation of Txn
// or Cursor is an Error there, the mark stays, and everything that would begin in the environment fails from then on.
void do_without_when_garbled(MDB_env* env);

// What is thrown through LMDB's frames then, while a Survivor lives on this thread. LMDB's state is not to be used
// again: a transaction that was writing is neither committed nor aborted, the environment not closed.
struct Garbled {};
class Survivor {
 public:
  Survivor();
  ~Survivor();
  Survivor(const Survivor&) = delete;
  Survivor& operator=(const Survivor&) = delete;
};

}  // namespace tidegate::lmdb
