// SPDX-License-Identifier: Apache-2.0
// The probe of type command: a program of this host judges a backend by its exit status.
//
// A document may name programs, so an author of documents could run them. So control runs commands only if it was
// started with --probe-commands DIRECTORY. It runs only programs that the host's administrator put there, without a
// shell, as a user without rights, and in a process group that is killed when the time is over.
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
  // Called once, when the program has ended and all its processes are gone: with waitpid's status, and the beginning of
  // its output.
  using Ended = std::function<void(int status, const std::string& output)>;

  // If this process is root, `user` runs the programs. Otherwise this process's own user does.
  static Result<std::shared_ptr<ProbeCommands>> allow(EventLoop& loop, const std::string& directory,
                                                      const std::string& user);
  ~ProbeCommands();  // kills running programs

  // Why this host cannot run a command of the model. Nothing if it can run all.
  std::optional<std::string> refusal(const Model& model) const;
  // Returns a number for abandon(). Never calls `ended` itself. An Error is about this host, not about the backend.
  Result<uint64_t> run(const std::vector<std::string>& command, const std::vector<std::string>& environment,
                       Ended ended);
  // Kills the program and everything that it started. `ended` is not called any more.
  void abandon(uint64_t number);
  size_t running() const { return children_.size(); }

 private:
  struct Child;

  ProbeCommands(EventLoop& loop, std::string directory);
  Result<std::string> program(const std::string& name) const;
  void on_ended(uint64_t number);

  EventLoop& loop_;
  const std::string directory_;
  std::vector<std::string> wrapper_;  // the program that drops all rights and then executes the command
  uint64_t last_number_ = 0;
  std::map<uint64_t, std::unique_ptr<Child>> children_;
};

// Why a model with commands is refused: this control runs none, or its host does not have all programs.
std::optional<std::string> refusal_of_commands(const ProbeCommands* commands, const Model& model);

// Replaces {address}, {port} and {name} in an argument by the backend's values. Pure.
std::string command_argument(std::string_view text, const ProbeTarget& target);

std::unique_ptr<ProbeAttempt> start_command_probe(EventLoop& loop, const ProbeTarget& target, ProbeDone done);

}  // namespace tidegate
