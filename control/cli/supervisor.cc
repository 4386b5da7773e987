// SPDX-License-Identifier: Apache-2.0
#include "control/cli/supervisor.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <csignal>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <utility>

#include "control/cli/supervised_process.h"
#include "core/clock.h"
#include "core/result.h"

namespace tidegate::cli {

namespace {

constexpr size_t kMaxLineBytes = 64 * 1024;  // a longer line is broken in two
constexpr size_t kMaxNoticeBytes = 4096;     // the rest of a longer notice is not read

sigset_t supervised_signals() {
  sigset_t set;
  ::sigemptyset(&set);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGCHLD}) ::sigaddset(&set, signal);
  return set;
}

}  // namespace

// One daemon: the process that serves, the replaced processes that still finish their connections, the pipe for the
// output of all of them, the socket on which the serving process names its successor (sd_notify(3)), and the pause
// before the next start.
class Supervisor::Daemon final : private IoHandler {
 public:
  Daemon(EventLoop& loop, DaemonCommand command, const std::string& run_dir, const MemoryRank& rank, const bool& ending)
      : loop_(loop),
        command_(std::move(command)),
        rank_(rank),
        ending_(ending),
        pause_(loop, [this] { start(); }),
        notices_(*this, run_dir + "/" + command_.name + ".notify") {}
  ~Daemon() {
    if (output_) loop_.remove(output_.get());
  }

  bool running() const { return main_ || !replaced_.empty(); }
  bool given_up() const { return given_up_; }

  void start() {
    if (Result<void> opened = open(); !opened) return give_up(opened.error().message);
    const pid_t supervisor = ::getpid();
    const pid_t child = ::fork();
    if (child < 0) return retry(fmt::format("cannot fork: {}", std::strerror(errno)));
    if (child == 0) run_child(supervisor);
    Result<std::unique_ptr<SupervisedProcess>> watched = watch(child);
    if (!watched) {
      ::kill(child, SIGKILL);
      ::waitpid(child, nullptr, 0);
      return retry(watched.error().message);
    }
    main_ = *std::move(watched);
    started_ns_ = monotonic_ns();
    print_line(fmt::format("started, process {}", child));
  }

  // Sends it to the process that serves, or to all.
  void signal(int number) const {
    if (main_) main_->signal(number);
  }
  void signal_all(int number) const {
    signal(number);
    for (const auto& process : replaced_) process->signal(number);
  }

  // A child was waited for. Returns false if it does not belong to this daemon.
  bool reaped(pid_t pid, int status) {
    SupervisedProcess* process = main_ && main_->pid() == pid ? main_.get() : nullptr;
    for (const auto& other : replaced_) {
      if (other->pid() == pid) process = other.get();
    }
    if (process != nullptr) process->reaped(status);
    return process != nullptr;
  }

  void cancel_restart() { pause_.cancel(); }

 private:
  // The socket for messages of the daemon's processes. A message counts only if the kernel says that the serving
  // process sent it.
  class Notices final : private IoHandler {
   public:
    Notices(Daemon& owner, std::string path) : owner_(owner), path_(std::move(path)) {}
    ~Notices() {
      if (!socket_) return;
      owner_.loop_.remove(socket_.get());
      ::unlink(path_.c_str());
    }

    Result<void> open() {
      if (socket_) return {};
      sockaddr_un address{};
      address.sun_family = AF_UNIX;
      if (path_.size() >= sizeof address.sun_path) return fail("the path is too long for a socket: " + path_);
      std::memcpy(address.sun_path, path_.data(), path_.size());
      ::unlink(path_.c_str());  // left by a supervisor that was killed
      UniqueFd socket(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
      const int on = 1;
      if (!socket || ::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
          ::chmod(path_.c_str(), 0600) != 0 ||
          ::setsockopt(socket.get(), SOL_SOCKET, SO_PASSCRED, &on, sizeof on) != 0) {
        return fail(fmt::format("{}: {}", path_, std::strerror(errno)));
      }
      socket_ = std::move(socket);
      owner_.loop_.add(socket_.get(), EPOLLIN, this);
      return {};
    }
    const std::string& path() const { return path_; }

    void read() {
      std::string message;
      pid_t sender = 0;
      while (socket_ && receive(message, sender)) {
        if (owner_.main_ && owner_.main_->pid() == sender) owner_.take_notice(message);
      }
    }

   private:
    void on_io(uint32_t) override { read(); }

    bool receive(std::string& message, pid_t& sender) const {
      message.resize(kMaxNoticeBytes);
      alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(ucred))> control{};
      iovec data{message.data(), message.size()};
      msghdr header{};
      header.msg_iov = &data;
      header.msg_iovlen = 1;
      header.msg_control = control.data();
      header.msg_controllen = control.size();
      const ssize_t bytes = ::recvmsg(socket_.get(), &header, MSG_CMSG_CLOEXEC);
      if (bytes < 0) return false;
      message.resize(static_cast<size_t>(bytes));
      sender = 0;
      for (cmsghdr* part = CMSG_FIRSTHDR(&header); part != nullptr; part = CMSG_NXTHDR(&header, part)) {
        if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_CREDENTIALS) continue;
        ucred credentials{};
        std::memcpy(&credentials, CMSG_DATA(part), sizeof credentials);
        sender = credentials.pid;
      }
      return true;
    }

    Daemon& owner_;
    const std::string path_;
    UniqueFd socket_;
  };

  Result<void> open() {
    if (Result<void> opened = notices_.open(); !opened) return opened;
    if (output_) return {};
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) return fail(fmt::format("no pipe: {}", std::strerror(errno)));
    output_.reset(ends[0]);
    input_.reset(ends[1]);
    ::fcntl(output_.get(), F_SETFL, O_NONBLOCK);
    loop_.add(output_.get(), EPOLLIN, this);
    return {};
  }

  [[noreturn]] void run_child(pid_t supervisor) {
    ::prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (::getppid() != supervisor) ::_exit(0);  // the supervisor died before prctl(2)
    rank_.settle(command_.name);
    const sigset_t set = supervised_signals();
    ::sigprocmask(SIG_UNBLOCK, &set, nullptr);
    ::setenv("NOTIFY_SOCKET", notices_.path().c_str(), 1);
    ::setenv("TIDEGATE_SUPERVISOR_PID", std::to_string(supervisor).c_str(), 1);
    for (const char* other : {"WATCHDOG_USEC", "WATCHDOG_PID"}) ::unsetenv(other);  // from this process's own manager
    ::dup2(input_.get(), STDOUT_FILENO);
    ::dup2(input_.get(), STDERR_FILENO);
    std::vector<char*> arguments;
    for (std::string& argument : command_.arguments) arguments.push_back(argument.data());
    arguments.push_back(nullptr);
    ::execvp(arguments[0], arguments.data());
    ::dprintf(STDERR_FILENO, "cannot run %s: %s\n", arguments[0], std::strerror(errno));
    ::_exit(127);
  }

  Result<std::unique_ptr<SupervisedProcess>> watch(pid_t pid) {
    return SupervisedProcess::watch(
        loop_, pid, [this](SupervisedProcess& process, std::optional<int> status) { ended(process, status); });
  }

  void take_notice(const std::string& message) {
    constexpr std::string_view kMainPid = "MAINPID=";
    for (size_t at = 0; at < message.size();) {
      const std::string_view line = std::string_view(message).substr(at, message.find('\n', at) - at);
      at += line.size() + 1;
      if (line == "X_TIDEGATE_SERVES=1") served_ = true;
      if (!line.starts_with(kMainPid)) continue;
      pid_t pid = 0;
      const auto [end, error] = std::from_chars(line.data() + kMainPid.size(), line.data() + line.size(), pid);
      if (error == std::errc() && end == line.data() + line.size() && pid > 0) follow(pid);
    }
  }

  void follow(pid_t pid) {
    Result<std::unique_ptr<SupervisedProcess>> watched = watch(pid);
    // The new process has ended already, and its predecessor does not serve any more.
    if (!watched) return print_line(fmt::format("upgraded, but {}", watched.error().message));
    print_line(fmt::format("upgraded: process {} serves, process {} finishes its connections", pid, main_->pid()));
    replaced_.push_back(std::exchange(main_, *std::move(watched)));
    started_ns_ = monotonic_ns();
  }

  void ended(SupervisedProcess& process, std::optional<int> status) {
    notices_.read();  // it may have named its successor
    on_io(0);         // reads its last output
    flush_partial();
    const auto found =
        std::find_if(replaced_.begin(), replaced_.end(), [&](const auto& one) { return one.get() == &process; });
    if (found != replaced_.end()) {
      print_line(fmt::format("process {}, which was replaced: {}", process.pid(), how_it_ended(status)));
      let_die(std::move(*found));
      replaced_.erase(found);
    } else {
      let_die(std::move(main_));
      main_ended(status);
    }
    if (ending_ && !running()) on_all_ended();
  }

  // The replaced processes are ended too, because they may hold what the next process needs.
  void main_ended(std::optional<int> status) {
    const std::string how = how_it_ended(status);
    if (ending_) return print_line(how);
    for (const auto& process : replaced_) process->signal(SIGTERM);
    if (ended_for_good(status)) return give_up(how);
    if (monotonic_ns() - started_ns_ > kSettledMs * kNsPerMs) pause_ms_ = kFirstPauseMs;
    retry(how);
  }

  // The object is destroyed later, because its function may be running now.
  void let_die(std::unique_ptr<SupervisedProcess> process) {
    loop_.defer([gone = std::make_shared<std::unique_ptr<SupervisedProcess>>(std::move(process))] { gone->reset(); });
  }

  void give_up(const std::string& why) {
    given_up_ = true;
    print_line(fmt::format("{}: it cannot run, and is not started again", why));
    loop_.defer([this] { on_given_up(command_.name, served_); });
  }

  void retry(const std::string& why) {
    print_line(fmt::format("{}; starting it again in {} ms", why, pause_ms_));
    pause_.arm_after_ms(pause_ms_);
    pause_ms_ = std::min(pause_ms_ * 2, kLongestPauseMs);
  }

  void on_io(uint32_t) override {
    std::array<char, 16 * 1024> chunk;
    ssize_t bytes = 0;
    while ((bytes = ::read(output_.get(), chunk.data(), chunk.size())) > 0) {
      partial_.append(chunk.data(), static_cast<size_t>(bytes));
      flush_lines();
    }
  }

  void flush_lines() {
    size_t start = 0;
    for (size_t end = partial_.find('\n'); end != std::string::npos; end = partial_.find('\n', start)) {
      print_line(std::string_view(partial_).substr(start, end - start));
      start = end + 1;
    }
    partial_.erase(0, start);
    if (partial_.size() > kMaxLineBytes) flush_partial();
  }

  void flush_partial() {
    if (!partial_.empty()) print_line(partial_);
    partial_.clear();
  }

  void print_line(std::string_view line) const {
    fmt::print("{:<7} | {}\n", command_.name, line);
    std::fflush(stdout);
  }

 public:
  std::function<void()> on_all_ended;  // called while the supervisor ends
  // The daemon is not started again. `served`: one of its processes has served before.
  std::function<void(const std::string& name, bool served)> on_given_up;

 private:
  EventLoop& loop_;
  DaemonCommand command_;
  const MemoryRank& rank_;
  const bool& ending_;
  std::unique_ptr<SupervisedProcess> main_;
  std::vector<std::unique_ptr<SupervisedProcess>> replaced_;
  bool served_ = false, given_up_ = false;
  uint64_t started_ns_ = 0;
  uint64_t pause_ms_ = kFirstPauseMs;
  Timer pause_;
  UniqueFd output_, input_;  // the two ends of the pipe; the daemon's processes write to one
  Notices notices_;
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

Supervisor::Supervisor(std::vector<DaemonCommand> commands, const std::string& run_dir)
    : patience_(loop_, [this] {
        for (const auto& daemon : daemons_) daemon->signal_all(SIGKILL);
      }) {
  for (DaemonCommand& command : commands) {
    daemons_.push_back(std::make_unique<Daemon>(loop_, std::move(command), run_dir, memory_rank_, ending_));
    daemons_.back()->on_all_ended = [this] { end_step(); };
    daemons_.back()->on_given_up = [this](const std::string& name, bool served) { gave_up(name, served); };
  }
}

Supervisor::~Supervisor() = default;

int Supervisor::run() {
  signals_ = std::make_unique<SignalReader>(*this);
  // An upgraded daemon is a child of its predecessor. When the predecessor has ended, the daemon becomes a child of
  // this process.
  ::prctl(PR_SET_CHILD_SUBREAPER, 1);
  memory_rank_.raise();
  for (const auto& daemon : daemons_) daemon->start();
  loop_.run();
  return exit_status_;
}

void Supervisor::on_signal(int signal) {
  if (signal == SIGCHLD) return reap();
  if (signal == SIGHUP || signal == SIGUSR1) {
    // SIGHUP is only for the process that serves, because it uses the configuration. SIGUSR1 is for all, because each
    // has log files.
    for (const auto& daemon : daemons_) signal == SIGHUP ? daemon->signal(signal) : daemon->signal_all(signal);
    return;
  }
  end();
}

// Ignores children that belong to no daemon: they are children of a daemon that ended before them.
void Supervisor::reap() {
  int status = 0;
  for (pid_t pid = ::waitpid(-1, &status, WNOHANG); pid > 0; pid = ::waitpid(-1, &status, WNOHANG)) {
    for (const auto& daemon : daemons_) {
      if (daemon->reaped(pid, status)) break;
    }
  }
}

void Supervisor::gave_up(const std::string& daemon, bool served) {
  if (ending_) return;
  const auto is_down = [](const std::unique_ptr<Daemon>& one) { return one->given_up(); };
  if (served && !std::all_of(daemons_.begin(), daemons_.end(), is_down)) {
    fmt::print(stderr, "tidegate run: {} is down until tidegate run is started again; the others go on\n", daemon);
    return;
  }
  exit_status_ = EXIT_FAILURE;
  fmt::print(stderr, "tidegate run: {} cannot run, so all end; its last lines say why\n", daemon);
  end();
}

void Supervisor::end() {
  if (ending_) return;
  ending_ = true;
  for (const auto& daemon : daemons_) daemon->cancel_restart();
  patience_.arm_after_ms(kPatienceMs);
  for (size_t i = 1; i < daemons_.size(); ++i) daemons_[i]->signal_all(SIGTERM);
  end_step();
}

// Ends the planes first. The control, which they follow, is ended after them.
void Supervisor::end_step() {
  const auto running = [](const std::unique_ptr<Daemon>& daemon) { return daemon->running(); };
  if (std::any_of(daemons_.begin() + 1, daemons_.end(), running)) return;
  if (daemons_.front()->running()) return daemons_.front()->signal_all(SIGTERM);
  loop_.stop();
}

}  // namespace tidegate::cli
