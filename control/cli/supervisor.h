// SPDX-License-Identifier: Apache-2.0
// Supervisor: keeps a few daemons running. It starts them, prints their output line by line with their names, starts
// them again with growing pauses if they crash, and ends them in order when it must end. An upgraded daemon names the
// new process by sd_notify(3), as it does to systemd. The supervisor watches the old process until it ends.
//
// A daemon whose exit status says that it cannot run is not started again. If it never served, the start failed: all
// daemons end, and the exit status of this process says so. If it served before, it stays down and the others go on.
//
// Threads: one loop. kill -9 leaves no process behind: children die with this process (PR_SET_PDEATHSIG), and upgraded
// daemons watch this process (ServiceManager::on_gone).
#pragma once

#include <sys/types.h>

#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "control/cli/memory_rank.h"
#include "core/event_loop.h"
#include "core/fd.h"

namespace tidegate::cli {

struct DaemonCommand {
  std::string name;                    // "l7": the prefix of its lines
  std::vector<std::string> arguments;  // [0] is the program's path
};

class Supervisor {
 public:
  static constexpr uint64_t kFirstPauseMs = 100;
  static constexpr uint64_t kLongestPauseMs = 5'000;
  static constexpr uint64_t kSettledMs = 10'000;   // a daemon that ran this long starts again without a pause
  static constexpr uint64_t kPatienceMs = 40'000;  // time from SIGTERM to SIGKILL; longer than a proxy needs to drain

  // The first command is ended after the others. Daemons name their successors at `<run_dir>/<name>.notify`. The
  // directory must exist.
  Supervisor(std::vector<DaemonCommand> commands, const std::string& run_dir);
  ~Supervisor();
  // Runs until SIGTERM or SIGINT, or until a daemon cannot run, and then until all have ended. Passes SIGHUP on.
  // Returns the exit status: 1 if a daemon could not start, or if none is left.
  int run();

 private:
  class Daemon;
  class SignalReader;
  void on_signal(int signal);
  void reap();
  void end();
  void gave_up(const std::string& daemon, bool served);
  void end_step();

  EventLoop loop_;
  MemoryRank memory_rank_;
  std::vector<std::unique_ptr<Daemon>> daemons_;
  std::unique_ptr<SignalReader> signals_;
  Timer patience_;
  bool ending_ = false;
  int exit_status_ = EXIT_SUCCESS;
};

}  // namespace tidegate::cli
