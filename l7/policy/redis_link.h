// SPDX-License-Identifier: Apache-2.0
// RedisLink: one connection to a Redis server, on a thread of its own, for scripts that are short. It speaks by
// hiredis. hiredis 0.14 has no time limit for a command, so the link has: a command that is not answered in time ends
// the connection, and everything that waits on it fails. Then the link is down, and a new connection is tried after a
// pause. While it is down, callers are told at once.
//
// Bounds: kRedisCommands are in flight at the most; one more is not taken.
//
// Threads: eval() and up() from any; the callback runs on the link's thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/ip.h"

namespace tidegate::l7::policy {

class RedisLink {
 public:
  struct Options {
    Endpoint address;
    std::string user, password;  // empty: none
    uint64_t timeout_ms = 20;
  };
  // The integers of the answer. Empty: it failed.
  using Done = std::function<void(const std::vector<int64_t>& answer)>;

  RedisLink(Options options, std::string script);
  ~RedisLink();  // waits for the thread; what waits is told that it failed
  RedisLink(const RedisLink&) = delete;
  RedisLink& operator=(const RedisLink&) = delete;

  // It is connected, or has not tried yet, so it is worth waiting for an answer.
  bool up() const;
  // Runs the script with one key. False: the link is down or full, and `done` is not called.
  bool eval(std::string key, std::vector<std::string> arguments, Done done);

  uint64_t calls() const;
  uint64_t failures() const;  // of connections and commands

 private:
  class Thread;
  std::unique_ptr<Thread> thread_;
};

}  // namespace tidegate::l7::policy
