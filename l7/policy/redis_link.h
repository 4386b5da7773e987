// SPDX-License-Identifier: Apache-2.0
// RedisLink: one connection to a Redis server, on its own thread, for short scripts. It uses hiredis. hiredis 0.14 has
// no time limit for a command, so the link has one: if a command is not answered in time, the connection ends, and all
// waiting commands fail. Then the link is down, and a new connection is tried after a pause. While it is down, callers
// are told at once.
//
// Bounds: at most kRedisCommands are in flight; another one is refused.
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
  // Gets the integers of the answer. The vector is empty if the command failed.
  using Done = std::function<void(const std::vector<int64_t>& answer)>;

  RedisLink(Options options, std::string script);
  ~RedisLink();  // waits for the thread; waiting callers are told that their commands failed
  RedisLink(const RedisLink&) = delete;
  RedisLink& operator=(const RedisLink&) = delete;

  // True if it is connected, or has not tried yet. Then it is worth waiting for an answer.
  bool up() const;
  // Runs the script with one key. Returns false if the link is down or full; then `done` is not called.
  bool eval(std::string key, std::vector<std::string> arguments, Done done);

  uint64_t calls() const;
  uint64_t failures() const;  // Failures of connections and commands.

 private:
  class Thread;
  std::unique_ptr<Thread> thread_;
};

}  // namespace tidegate::l7::policy
