// SPDX-License-Identifier: Apache-2.0
#include "control/cli/supervised_process.h"

#include <fmt/format.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "core/exit_status.h"

namespace tidegate::cli {

std::string how_it_ended(std::optional<int> status) {
  if (!status) return "it ended";
  if (WIFSIGNALED(*status)) return fmt::format("killed by signal {}", WTERMSIG(*status));
  return fmt::format("exit status {}", WEXITSTATUS(*status));
}

bool ended_for_good(std::optional<int> status) {
  constexpr int kNotRunnable = 126, kNoProgram = 127;  // what a shell returns, too
  constexpr std::array kForGood = {kExitCannotRun, kExitWrongOptions, kNotRunnable, kNoProgram};
  return status && WIFEXITED(*status) &&
         std::find(kForGood.begin(), kForGood.end(), WEXITSTATUS(*status)) != kForGood.end();
}

Result<std::unique_ptr<SupervisedProcess>> SupervisedProcess::watch(EventLoop& loop, pid_t pid, Ended ended) {
  UniqueFd process(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  if (!process) return fail(fmt::format("process {}: {}", pid, std::strerror(errno)));
  return std::unique_ptr<SupervisedProcess>(new SupervisedProcess(loop, pid, std::move(process), std::move(ended)));
}

SupervisedProcess::SupervisedProcess(EventLoop& loop, pid_t pid, UniqueFd process, Ended ended)
    : loop_(loop), pid_(pid), process_(std::move(process)), ended_(std::move(ended)) {
  loop_.add(process_.get(), EPOLLIN, this);
}

SupervisedProcess::~SupervisedProcess() {
  if (process_) loop_.remove(process_.get());
}

void SupervisedProcess::signal(int number) const {
  if (process_) (void)::syscall(SYS_pidfd_send_signal, process_.get(), number, nullptr, 0);
}

void SupervisedProcess::on_io(uint32_t) {
  int status = 0;
  const bool is_child = ::waitpid(pid_, &status, WNOHANG) == pid_;
  end(is_child ? std::optional(status) : std::nullopt);
}

void SupervisedProcess::end(std::optional<int> status) {
  if (!process_) return;
  loop_.remove(process_.get());
  process_.reset();
  ended_(*this, status);
}

}  // namespace tidegate::cli
