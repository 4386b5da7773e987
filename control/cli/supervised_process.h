// SPDX-License-Identifier: Apache-2.0
// SupervisedProcess: one process that a supervisor watches. It need not be a child: after an upgrade, the earlier
// daemon process has started the present one.
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
  // `status` as in wait(2); nothing: it was another process's child. Called once. The SupervisedProcess may be
  // destroyed only in a later iteration of the loop.
  using Ended = std::function<void(SupervisedProcess& process, std::optional<int> status)>;

  // Returns an Error if there is no such process, or if no descriptor for it is available.
  static Result<std::unique_ptr<SupervisedProcess>> watch(EventLoop& loop, pid_t pid, Ended ended);
  ~SupervisedProcess();

  pid_t pid() const { return pid_; }
  void signal(int number) const;  // has no effect on a process that has ended, even if another one has its pid
  // Somebody else has waited for the process.
  void reaped(int status) { end(status); }

 private:
  SupervisedProcess(EventLoop& loop, pid_t pid, UniqueFd process, Ended ended);
  void on_io(uint32_t events) override;
  void end(std::optional<int> status);

  EventLoop& loop_;
  const pid_t pid_;
  UniqueFd process_;  // pidfd; empty: the process has ended
  Ended ended_;
};

std::string how_it_ended(std::optional<int> status);
// True if another start would end in the same way: the exit status says so (core/exit_status.h), or there is no program
// to run.
bool ended_for_good(std::optional<int> status);

}  // namespace tidegate::cli
