// SPDX-License-Identifier: Apache-2.0
// The probe of type command: a program of this host judges a backend by its exit status.
//
// A document may name programs, and whoever may write documents could run them. So control runs commands only if it was
// started with --probe-commands DIRECTORY, only programs that the host's administrator put there, without a shell, as a
// user without rights, and in a process group that is killed when the time is over.
//
// Threads: the control's loop.
#pragma once

#include <sys/types.h>

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "conf/model.h"
#include "control/health/probe.h"
#include "core/event_loop.h"
#include "core/result.h"

namespace tidegate {

class ProbeCommands {
 public:
  // Told once, when the program has ended and nothing of it runs any more: waitpid's status, and what it printed first.
  using Ended = std::function<void(int status, const std::string& output)>;

  // `user` runs the programs if this process is root. Otherwise its own user does.
  static Result<std::shared_ptr<ProbeCommands>> allow(EventLoop& loop, const std::string& directory,
                                                      const std::string& user);
  ~ProbeCommands();  // kills what runs

  // Why this host cannot run a command of the model. Nothing: it can run all.
  std::optional<std::string> refusal(const Model& model) const;
  // Returns a number for abandon(). Never calls `ended` itself. An error is this host's own, not the backend's.
  Result<uint64_t> run(const std::vector<std::string>& command, const std::vector<std::string>& environment,
                       Ended ended);
  // Kills the program with all that it started. `ended` is not called any more.
  void abandon(uint64_t number);
  size_t running() const { return children_.size(); }

 private:
  struct Child;

  ProbeCommands(EventLoop& loop, std::string directory);
  Result<std::string> program(const std::string& name) const;
  void on_ended(uint64_t number);

  EventLoop& loop_;
  const std::string directory_;
  std::vector<std::string> wrapper_;  // what takes the rights away, and then becomes the program
  uint64_t last_number_ = 0;
  std::map<uint64_t, std::unique_ptr<Child>> children_;
};

// Why a model with commands is refused by a control that runs none, or by one whose host has not all programs.
std::optional<std::string> refusal_of_commands(const ProbeCommands* commands, const Model& model);

// {address}, {port} and {name} in an argument are replaced by what the backend has. Pure.
std::string command_argument(std::string_view text, const ProbeTarget& target);

std::unique_ptr<ProbeAttempt> start_command_probe(EventLoop& loop, const ProbeTarget& target, ProbeDone done);

}  // namespace tidegate
