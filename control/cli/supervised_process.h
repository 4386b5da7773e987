// SPDX-License-Identifier: Apache-2.0
// SupervisedProcess: one process that a supervisor watches, whether it is its child or not. After an upgrade the daemon
// is a process that the one before it started.
#pragma once

#include <sys/types.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "core/event_loop.h"
#include "core/fd.h"
#include "core/result.h"

namespace tidegate::cli {

class SupervisedProcess final : private IoHandler {
 public:
  // `status` as of wait(2); nothing: it was another process's child. Called once. The SupervisedProcess may be
  // destroyed in a later iteration of the loop only.
  using Ended = std::function<void(SupervisedProcess& process, std::optional<int> status)>;

  // An Error: there is no such process, or no descriptor for it could be had.
  static Result<std::unique_ptr<SupervisedProcess>> watch(EventLoop& loop, pid_t pid, Ended ended);
  ~SupervisedProcess();

  pid_t pid() const { return pid_; }
  void signal(int number) const;  // has no effect on a process that has ended, even if another one has its pid
  // Somebody else waited for it.
  void reaped(int status) { end(status); }

 private:
  SupervisedProcess(EventLoop& loop, pid_t pid, UniqueFd process, Ended ended);
  void on_io(uint32_t events) override;
  void end(std::optional<int> status);

  EventLoop& loop_;
  const pid_t pid_;
  UniqueFd process_;  // pidfd; empty: it has ended
  Ended ended_;
};

std::string how_it_ended(std::optional<int> status);
// It said itself that it cannot run: its options are wrong, a port is taken, a privilege or the program is missing.
// Another try would end in the same way.
bool ended_for_good(std::optional<int> status);

}  // namespace tidegate::cli
