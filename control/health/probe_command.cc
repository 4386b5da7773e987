// SPDX-License-Identifier: Apache-2.0
#include "control/health/probe_command.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <pwd.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <utility>

#include "conf/model/probe.h"
#include "control/health/probe_attempt.h"
#include "control/limits.h"
#include "core/assert.h"
#include "core/fd.h"

namespace tidegate {

namespace {

constexpr const char* kSetpriv = "/usr/bin/setpriv";  // from util-linux, which every Debian system has
constexpr size_t kReasonBytes = 160;                  // most bytes of the program's first line
constexpr int kFirstFreeFd = 3;
constexpr int kCannotRun = 126, kNotFound = 127;  // exit statuses of setpriv if the program could not be started

// True if only root or this process's user can have written the file.
bool is_trusted(const struct stat& file) {
  return (file.st_uid == 0 || file.st_uid == ::geteuid()) && (file.st_mode & (S_IWGRP | S_IWOTH)) == 0;
}

std::vector<char*> pointers(const std::vector<std::string>& texts) {
  std::vector<char*> out;
  out.reserve(texts.size() + 1);
  for (const std::string& text : texts) out.push_back(const_cast<char*>(text.c_str()));
  out.push_back(nullptr);
  return out;
}

// posix_spawn, because other threads run. The program gets a process group of its own.
Result<pid_t> spawn(const std::vector<std::string>& arguments, const std::vector<std::string>& environment,
                    int output_fd) {
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  ::posix_spawn_file_actions_adddup2(&actions, output_fd, STDOUT_FILENO);
  ::posix_spawn_file_actions_adddup2(&actions, output_fd, STDERR_FILENO);
  ::posix_spawn_file_actions_addclosefrom_np(&actions, kFirstFreeFd);
  ::posix_spawnattr_init(&attributes);
  sigset_t none, defaults;
  ::sigemptyset(&none);
  ::sigfillset(&defaults);
  ::sigdelset(&defaults, SIGKILL);
  ::sigdelset(&defaults, SIGSTOP);
  ::posix_spawnattr_setsigmask(&attributes, &none);
  ::posix_spawnattr_setsigdefault(&attributes, &defaults);
  ::posix_spawnattr_setpgroup(&attributes, 0);
  ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
  pid_t pid = -1;
  const int error = ::posix_spawn(&pid, arguments.front().c_str(), &actions, &attributes, pointers(arguments).data(),
                                  pointers(environment).data());
  ::posix_spawn_file_actions_destroy(&actions);
  ::posix_spawnattr_destroy(&attributes);
  if (error != 0) return fail(fmt::format("cannot start a command: {}", std::strerror(error)));
  return pid;
}

// In printable ASCII, because it becomes part of the live state.
std::string first_line(const std::string& output) {
  std::string line = output.substr(0, std::min(output.find('\n'), kReasonBytes));
  for (char& byte : line) byte = byte >= 0x20 && byte <= 0x7e ? byte : '?';
  return line;
}

}  // namespace

// One running program. The object stays here until the program has ended, even if nobody waits for it any more.
struct ProbeCommands::Child {
  struct Ready final : IoHandler {
    explicit Ready(std::function<void()> on_ready) : act(std::move(on_ready)) {}
    void on_io(uint32_t) override { act(); }
    std::function<void()> act;
  };

  Child(EventLoop& of_loop, pid_t id, UniqueFd pidfd, UniqueFd pipe, Ended told, std::function<void()> on_end)
      : loop(of_loop),
        pid(id),
        process(std::move(pidfd)),
        output_fd(std::move(pipe)),
        ended(std::move(told)),
        end(std::move(on_end)),
        input([this] { read(); }) {
    loop.add(process.get(), EPOLLIN, &end);
    loop.add(output_fd.get(), EPOLLIN, &input);
  }
  ~Child() {
    close_output();
    loop.remove(process.get());
    if (pid <= 0) return;
    kill();
    ::waitpid(pid, nullptr, 0);
  }

  // No other process can have the group's number, because its leader has not been waited for.
  void kill() const { ::kill(-pid, SIGKILL); }

  // Reads everything and keeps the beginning, so that a program with much output can continue. Takes turns with other
  // descriptors.
  void read() {
    std::array<char, 4'096> buffer;
    const ssize_t got = ::read(output_fd.get(), buffer.data(), buffer.size());
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0) return close_output();
    const size_t room = kProbeCommandOutputBytes - output.size();
    output.append(buffer.data(), std::min(room, static_cast<size_t>(got)));
  }
  void close_output() {
    if (!output_fd) return;
    loop.remove(output_fd.get());
    output_fd.reset();
  }
  // Returns waitpid's status.
  int reap() {
    if (output_fd) read();  // reads its last output; only the first line counts
    kill();                 // kills what it left behind
    int status = 0;
    ::waitpid(std::exchange(pid, 0), &status, 0);
    return status;
  }

  EventLoop& loop;
  pid_t pid;
  UniqueFd process, output_fd;
  std::string output;
  Ended ended;  // empty after abandon()
  Ready end, input;
};

Result<std::shared_ptr<ProbeCommands>> ProbeCommands::allow(EventLoop& loop, const std::string& directory,
                                                            const std::string& user) {
  struct stat found {};
  if (directory.empty() || directory.front() != '/') return fail("--probe-commands needs an absolute path");
  if (::stat(directory.c_str(), &found) != 0) return fail(directory + ": " + std::strerror(errno));
  if (!S_ISDIR(found.st_mode)) return fail(directory + " is no directory");
  if (!is_trusted(found)) return fail(directory + " may be written by others than root and control's user");
  if (::access(kSetpriv, X_OK) != 0) return fail(std::string("--probe-commands needs ") + kSetpriv);
  std::shared_ptr<ProbeCommands> commands(new ProbeCommands(loop, directory));
  commands->wrapper_ = {kSetpriv, "--no-new-privs"};
  if (::geteuid() == 0) {
    const passwd* const runner = ::getpwnam(user.c_str());
    if (runner == nullptr) return fail(fmt::format("--probe-commands-user: there is no user {}", user));
    if (runner->pw_uid == 0) return fail("--probe-commands-user may not be root");
    const std::vector<std::string> as_user = {"--inh-caps=-all", "--bounding-set=-all",
                                              fmt::format("--reuid={}", runner->pw_uid),
                                              fmt::format("--regid={}", runner->pw_gid), "--clear-groups"};
    commands->wrapper_.insert(commands->wrapper_.end(), as_user.begin(), as_user.end());
  }
  // No program may outlive control, because control would start it a second time after its own restart.
  commands->wrapper_.insert(commands->wrapper_.end(), {"--pdeathsig=KILL", "--"});
  return commands;
}

ProbeCommands::ProbeCommands(EventLoop& loop, std::string directory) : loop_(loop), directory_(std::move(directory)) {}

ProbeCommands::~ProbeCommands() = default;

Result<std::string> ProbeCommands::program(const std::string& name) const {
  TIDEGATE_ASSERT(name.find('/') == std::string::npos, "validation takes the name of a file");
  std::string path = directory_ + "/" + name;
  struct stat found {};
  if (::stat(path.c_str(), &found) != 0) return fail(path + ": " + std::strerror(errno));
  if (!S_ISREG(found.st_mode) || (found.st_mode & S_IXOTH) == 0) return fail(path + " is no program that all may run");
  if (!is_trusted(found)) return fail(path + " may be written by others than root and control's user");
  return path;
}

std::optional<std::string> ProbeCommands::refusal(const Model& model) const {
  for (const Probe& probe : model.probes) {
    if (probe.type != ProbeType::command) continue;
    if (const Result<std::string> path = program(probe.command.front()); !path) return path.error().message;
  }
  return std::nullopt;
}

std::optional<std::string> refusal_of_commands(const ProbeCommands* commands, const Model& model) {
  if (commands != nullptr) return commands->refusal(model);
  for (const Probe& probe : model.probes) {
    if (probe.type == ProbeType::command) {
      return fmt::format("probe '{}' is a command, and this control was started without --probe-commands", probe.name);
    }
  }
  return std::nullopt;
}

Result<uint64_t> ProbeCommands::run(const std::vector<std::string>& command,
                                    const std::vector<std::string>& environment, Ended ended) {
  if (children_.size() >= kProbeCommandsAtOnce) {
    return fail(fmt::format("{} commands run already, and no more may", children_.size()));
  }
  const Result<std::string> path = program(command.front());
  if (!path) return path.error();
  std::vector<std::string> arguments = wrapper_;
  arguments.push_back(*path);
  arguments.insert(arguments.end(), command.begin() + 1, command.end());
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) return fail(std::string("no pipe: ") + std::strerror(errno));
  UniqueFd output(ends[0]), input(ends[1]);
  if (is_reserved_file(input.get())) return fail(std::string("no pipe: ") + std::strerror(EMFILE));
  ::fcntl(output.get(), F_SETFL, O_NONBLOCK);
  const Result<pid_t> pid = spawn(arguments, environment, input.get());
  if (!pid) return pid.error();
  UniqueFd process(static_cast<int>(::syscall(SYS_pidfd_open, *pid, 0)));
  if (!process) {
    const int error = errno;
    ::kill(-*pid, SIGKILL);
    ::waitpid(*pid, nullptr, 0);
    return fail(std::string("pidfd_open: ") + std::strerror(error));
  }
  const uint64_t number = ++last_number_;
  children_[number] = std::make_unique<Child>(loop_, *pid, std::move(process), std::move(output), std::move(ended),
                                              [this, number] { on_ended(number); });
  return number;
}

void ProbeCommands::on_ended(uint64_t number) {
  const auto found = children_.find(number);
  TIDEGATE_ASSERT(found != children_.end(), "a child stays until it has ended");
  // Destroyed later, because it is the caller of this function.
  const std::shared_ptr<Child> child = std::move(found->second);
  children_.erase(found);
  const int status = child->reap();
  loop_.defer([child] {});
  if (child->ended) child->ended(status, child->output);
}

void ProbeCommands::abandon(uint64_t number) {
  const auto found = children_.find(number);
  if (found == children_.end()) return;
  found->second->ended = nullptr;
  found->second->kill();
}

std::string command_argument(std::string_view text, const ProbeTarget& target) {
  const std::pair<std::string_view, std::string> values[] = {{"{address}", target.endpoint.address.to_string()},
                                                             {"{port}", std::to_string(target.endpoint.port)},
                                                             {"{name}", target.backend}};
  std::string out;
  while (!text.empty()) {
    bool replaced = false;
    for (const auto& [word, value] : values) {
      if (!text.starts_with(word)) continue;
      out += value;
      text.remove_prefix(word.size());
      replaced = true;
      break;
    }
    if (replaced) continue;
    out += text.front();
    text.remove_prefix(1);
  }
  return out;
}

namespace {

class CommandAttempt final : public ProbeAttempt {
 public:
  CommandAttempt(EventLoop& loop, const ProbeTarget& target, ProbeDone done)
      : loop_(loop),
        done_(std::move(done)),
        commands_(target.commands),
        deadline_(loop, target.timeout_ms, [this, ms = target.timeout_ms] {
          commands_->abandon(std::exchange(number_, 0));
          done_({false, fmt::format("the command was not over after {} ms", ms), true, ProbeCause::timeout});
        }) {
    if (!commands_) {
      fail_later("no commands: control was started without --probe-commands");
    } else {
      start(target);
    }
  }
  ~CommandAttempt() override {
    if (number_ != 0) commands_->abandon(number_);
  }

 private:
  void start(const ProbeTarget& target) {
    std::vector<std::string> command = target.command;
    for (size_t i = 1; i < command.size(); ++i) command[i] = command_argument(command[i], target);
    const std::vector<std::string> environment = {
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG=C",
        "TIDEGATE_ADDRESS=" + target.endpoint.address.to_string(),
        fmt::format("TIDEGATE_PORT={}", target.endpoint.port),
        "TIDEGATE_BACKEND=" + target.backend,
    };
    const Result<uint64_t> number =
        commands_->run(command, environment, [this](int status, const std::string& output) { judge(status, output); });
    if (!number) return fail_later(number.error().message);
    number_ = *number;
    deadline_.start();
  }
  void judge(int status, const std::string& output) {
    number_ = 0;
    deadline_.cancel();
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return done_({true, ""});
    std::string why = WIFEXITED(status) ? fmt::format("exit status {}", WEXITSTATUS(status))
                                        : fmt::format("ended by signal {}", WTERMSIG(status));
    if (const std::string line = first_line(output); !line.empty()) why += ": " + line;
    const bool ran = !WIFEXITED(status) || (WEXITSTATUS(status) != kCannotRun && WEXITSTATUS(status) != kNotFound);
    done_({false, std::move(why), ran, ProbeCause::answer});
  }
  // Fails later, because the owner does not hold this attempt yet.
  void fail_later(std::string why) {
    at_once_ = std::make_unique<Timer>(loop_, [this, why = std::move(why)] { done_({false, why, false}); });
    at_once_->arm_after_ns(0);
  }

  EventLoop& loop_;
  ProbeDone done_;
  const std::shared_ptr<ProbeCommands> commands_;
  Deadline deadline_;
  std::unique_ptr<Timer> at_once_;
  uint64_t number_ = 0;  // number of the running program; 0: none
};

}  // namespace

std::unique_ptr<ProbeAttempt> start_command_probe(EventLoop& loop, const ProbeTarget& target, ProbeDone done) {
  return std::make_unique<CommandAttempt>(loop, target, std::move(done));
}

}  // namespace tidegate
