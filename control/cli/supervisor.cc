// SPDX-License-Identifier: Apache-2.0
#include "control/cli/supervisor.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "core/clock.h"

namespace tidegate::cli {

namespace {

constexpr size_t kMaxLineBytes = 64 * 1024;  // a longer line is broken in two

sigset_t supervised_signals() {
  sigset_t set;
  ::sigemptyset(&set);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGCHLD}) ::sigaddset(&set, signal);
  return set;
}

std::string how_it_ended(int status) {
  if (WIFSIGNALED(status)) return fmt::format("killed by signal {}", WTERMSIG(status));
  return fmt::format("exit status {}", WEXITSTATUS(status));
}

}  // namespace

// One daemon: at most one process at a time, the pipe for its output, and the pause before its next start.
class Supervisor::Daemon final : private IoHandler {
 public:
  Daemon(EventLoop& loop, DaemonCommand command)
      : loop_(loop), command_(std::move(command)), pause_(loop, [this] { start(); }) {}
  ~Daemon() { close_output(); }

  pid_t pid() const { return pid_; }
  bool running() const { return pid_ > 0; }

  void start() {
    int pipe_fds[2];
    if (::pipe2(pipe_fds, O_CLOEXEC) != 0) return retry(fmt::format("no pipe: {}", std::strerror(errno)));
    UniqueFd read_end(pipe_fds[0]), write_end(pipe_fds[1]);
    const pid_t supervisor = ::getpid();
    const pid_t child = ::fork();
    if (child < 0) return retry(fmt::format("cannot fork: {}", std::strerror(errno)));
    if (child == 0) run_child(supervisor, write_end.get());
    pid_ = child;
    started_ns_ = monotonic_ns();
    ::fcntl(read_end.get(), F_SETFL, O_NONBLOCK);
    close_output();
    output_ = std::move(read_end);
    loop_.add(output_.get(), EPOLLIN, this);
    print_line(fmt::format("started, process {}", pid_));
  }

  void signal(int number) const {
    if (running()) ::kill(pid_, number);
  }

  void ended(int status, bool restart) {
    on_io(0);  // its last output
    pid_ = -1;
    if (monotonic_ns() - started_ns_ > kSettledMs * kNsPerMs) pause_ms_ = kFirstPauseMs;
    if (restart) {
      retry(how_it_ended(status));
    } else {
      print_line(how_it_ended(status));
    }
  }

  void cancel_restart() { pause_.cancel(); }

 private:
  [[noreturn]] void run_child(pid_t supervisor, int output) {
    ::prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (::getppid() != supervisor) ::_exit(0);  // the supervisor died before prctl(2)
    const sigset_t set = supervised_signals();
    ::sigprocmask(SIG_UNBLOCK, &set, nullptr);
    ::setenv("TIDEGATE_SUPERVISOR", "tidegate run", 1);  // an upgrade would look like a crash to it
    ::dup2(output, STDOUT_FILENO);
    ::dup2(output, STDERR_FILENO);
    std::vector<char*> arguments;
    for (std::string& argument : command_.arguments) arguments.push_back(argument.data());
    arguments.push_back(nullptr);
    ::execvp(arguments[0], arguments.data());
    ::dprintf(STDERR_FILENO, "cannot run %s: %s\n", arguments[0], std::strerror(errno));
    ::_exit(127);
  }

  void retry(const std::string& why) {
    print_line(fmt::format("{}; starting it again in {} ms", why, pause_ms_));
    pause_.arm_after_ms(pause_ms_);
    pause_ms_ = std::min(pause_ms_ * 2, kLongestPauseMs);
  }

  void on_io(uint32_t) override {
    std::array<char, 16 * 1024> chunk;
    ssize_t bytes = 0;
    while (output_ && (bytes = ::read(output_.get(), chunk.data(), chunk.size())) > 0) {
      partial_.append(chunk.data(), static_cast<size_t>(bytes));
      flush_lines();
    }
    if (bytes == 0) close_output();
  }

  void flush_lines() {
    size_t start = 0;
    for (size_t end = partial_.find('\n'); end != std::string::npos; end = partial_.find('\n', start)) {
      print_line(std::string_view(partial_).substr(start, end - start));
      start = end + 1;
    }
    partial_.erase(0, start);
    if (partial_.size() > kMaxLineBytes) {
      print_line(partial_);
      partial_.clear();
    }
  }

  void close_output() {
    if (!output_) return;
    loop_.remove(output_.get());
    output_.reset();
    if (!partial_.empty()) print_line(partial_);
    partial_.clear();
  }

  void print_line(std::string_view line) const {
    fmt::print("{:<7} | {}\n", command_.name, line);
    std::fflush(stdout);
  }

  EventLoop& loop_;
  DaemonCommand command_;
  pid_t pid_ = -1;
  uint64_t started_ns_ = 0;
  uint64_t pause_ms_ = kFirstPauseMs;
  Timer pause_;
  UniqueFd output_;
  std::string partial_;
};

class Supervisor::SignalReader final : private IoHandler {
 public:
  explicit SignalReader(Supervisor& owner) : owner_(owner) {
    const sigset_t set = supervised_signals();
    ::sigprocmask(SIG_BLOCK, &set, nullptr);
    fd_.reset(::signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC));
    owner_.loop_.add(fd_.get(), EPOLLIN, this);
  }
  ~SignalReader() { owner_.loop_.remove(fd_.get()); }

 private:
  void on_io(uint32_t) override {
    signalfd_siginfo info{};
    while (::read(fd_.get(), &info, sizeof info) == static_cast<ssize_t>(sizeof info)) {
      owner_.on_signal(static_cast<int>(info.ssi_signo));
    }
  }
  Supervisor& owner_;
  UniqueFd fd_;
};

Supervisor::Supervisor(std::vector<DaemonCommand> commands)
    : patience_(loop_, [this] {
        for (const auto& daemon : daemons_) daemon->signal(SIGKILL);
      }) {
  for (DaemonCommand& command : commands) daemons_.push_back(std::make_unique<Daemon>(loop_, std::move(command)));
}

Supervisor::~Supervisor() = default;

int Supervisor::run() {
  signals_ = std::make_unique<SignalReader>(*this);
  for (const auto& daemon : daemons_) daemon->start();
  loop_.run();
  return EXIT_SUCCESS;
}

void Supervisor::on_signal(int signal) {
  if (signal == SIGCHLD) return reap();
  if (signal == SIGHUP || signal == SIGUSR1) {
    for (const auto& daemon : daemons_) daemon->signal(signal);
    return;
  }
  end();
}

void Supervisor::reap() {
  int status = 0;
  for (pid_t pid = ::waitpid(-1, &status, WNOHANG); pid > 0; pid = ::waitpid(-1, &status, WNOHANG)) {
    for (const auto& daemon : daemons_) {
      if (daemon->pid() == pid) daemon->ended(status, !ending_);
    }
  }
  if (ending_) end_step();
}

void Supervisor::end() {
  if (ending_) return;
  ending_ = true;
  for (const auto& daemon : daemons_) daemon->cancel_restart();
  patience_.arm_after_ms(kPatienceMs);
  for (size_t i = 1; i < daemons_.size(); ++i) daemons_[i]->signal(SIGTERM);
  end_step();
}

// Ends the planes first. The control, which they follow, is ended after them.
void Supervisor::end_step() {
  const auto running = [](const std::unique_ptr<Daemon>& daemon) { return daemon->running(); };
  if (std::any_of(daemons_.begin() + 1, daemons_.end(), running)) return;
  if (daemons_.front()->running()) return daemons_.front()->signal(SIGTERM);
  loop_.stop();
}

}  // namespace tidegate::cli
