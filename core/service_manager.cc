// SPDX-License-Identifier: Apache-2.0
#include "core/service_manager.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <utility>

#include "core/clock.h"
#include "core/limits.h"
#include "core/log.h"

namespace tidegate {
namespace {

constexpr uint64_t kSendAgainMs = 20;

std::string take_variable(const char* name) {
  const char* value = std::getenv(name);
  std::string taken = value != nullptr ? value : "";
  ::unsetenv(name);
  return taken;
}

std::optional<uint64_t> number(const std::string& text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// The time within which the manager wants to hear from this process; 0 if it does not.
uint64_t take_watchdog_ns() {
  const std::string microseconds = take_variable("WATCHDOG_USEC"), pid = take_variable("WATCHDOG_PID");
  if (!pid.empty() && number(pid) != static_cast<uint64_t>(::getpid())) return 0;
  return number(microseconds).value_or(0) * 1'000;
}

// A path, or a name in the abstract namespace after '@'. 0 if it is neither or too long.
socklen_t to_address(const std::string& path, sockaddr_un& address) {
  if (path.size() < 2 || (path[0] != '/' && path[0] != '@') || path.size() >= sizeof address.sun_path) return 0;
  address = {};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  if (path[0] == '@') address.sun_path[0] = '\0';
  return static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size());
}

// The descriptors that the manager gave to this very process: from 3 on, with names between colons.
std::vector<std::pair<std::string, UniqueFd>> take_listen_fds() {
  const std::string pid = take_variable("LISTEN_PID"), count = take_variable("LISTEN_FDS");
  std::string names = take_variable("LISTEN_FDNAMES");
  std::vector<std::pair<std::string, UniqueFd>> kept;
  if (number(pid) != static_cast<uint64_t>(::getpid())) return kept;
  constexpr uint64_t kFirst = 3;
  const uint64_t end = kFirst + std::min<uint64_t>(number(count).value_or(0), kHandOverSockets);
  for (uint64_t i = kFirst; i < end; ++i) {
    const size_t colon = std::min(names.find(':'), names.size());
    std::string name = names.substr(0, colon);
    names.erase(0, colon + 1);
    const int fd = static_cast<int>(i);
    if (::fcntl(fd, F_SETFD, FD_CLOEXEC) != 0) break;  // the variable names more descriptors than there are
    kept.emplace_back(std::move(name), UniqueFd(fd));
  }
  return kept;
}

}  // namespace

ServiceManager::ServiceManager(EventLoop& loop)
    : loop_(loop),
      path_(take_variable("NOTIFY_SOCKET")),
      again_(loop, [this] { send_waiting(); }),
      kept_(take_listen_fds()),
      supervisor_pid_(take_variable("TIDEGATE_SUPERVISOR_PID")),
      watchdog_ns_(take_watchdog_ns()),
      watchdog_(loop, [this] { feed_watchdog(); }) {
  watch_supervisor();
  if (path_.empty()) return;
  sockaddr_un address{};
  if (to_address(path_, address) == 0) {
    log_warn("NOTIFY_SOCKET is no path and no abstract name: '{}'; the service manager hears nothing", path_);
    path_.clear();
    return;
  }
  socket_.reset(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
}

ServiceManager::~ServiceManager() {
  send_waiting();
  if (supervisor_) loop_.remove(supervisor_.get());
}

void ServiceManager::watch_supervisor() {
  const std::optional<uint64_t> pid = number(supervisor_pid_);
  if (supervisor_pid_.empty()) return;
  if (pid) supervisor_.reset(static_cast<int>(::syscall(SYS_pidfd_open, static_cast<pid_t>(*pid), 0)));
  if (!supervisor_) {
    log_warn("TIDEGATE_SUPERVISOR_PID is no process: '{}'", supervisor_pid_);
    supervisor_pid_.clear();
    return;
  }
  loop_.add(supervisor_.get(), EPOLLIN, &watch_);
}

void ServiceManager::supervisor_ended() {
  loop_.remove(supervisor_.get());
  supervisor_.reset();
  log_warn("the supervisor, process {}, has ended", supervisor_pid_);
  if (on_gone) on_gone();
}

void ServiceManager::send(std::string text, UniqueFd fd) {
  if (path_.empty() || followed_) return;
  waiting_.push_back({std::move(text), std::move(fd)});
  if (!again_.armed()) send_waiting();
}

// False: there is no room now.
bool ServiceManager::send_now(const Message& message) {
  sockaddr_un address{};
  iovec bytes{const_cast<char*>(message.text.data()), message.text.size()};
  msghdr header{};
  header.msg_name = &address;
  header.msg_namelen = to_address(path_, address);
  header.msg_iov = &bytes;
  header.msg_iovlen = 1;
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  if (message.fd) {
    header.msg_control = control.data();
    header.msg_controllen = control.size();
    cmsghdr* const part = CMSG_FIRSTHDR(&header);
    part->cmsg_level = SOL_SOCKET;
    part->cmsg_type = SCM_RIGHTS;
    part->cmsg_len = CMSG_LEN(sizeof(int));
    const int fd = message.fd.get();
    std::memcpy(CMSG_DATA(part), &fd, sizeof fd);
  }
  ssize_t sent;
  do {
    sent = ::sendmsg(socket_.get(), &header, MSG_NOSIGNAL);
  } while (sent < 0 && errno == EINTR);
  if (sent < 0 && (errno == EAGAIN || errno == ENOBUFS || errno == ETOOMANYREFS)) return false;
  if (sent < 0) log_warn("cannot tell the service manager at {}: {}", path_, std::strerror(errno));
  return true;
}

void ServiceManager::send_waiting() {
  while (!waiting_.empty() && send_now(waiting_.front())) waiting_.pop_front();
  if (!waiting_.empty()) again_.arm_after_ms(kSendAgainMs);
}

void ServiceManager::keep(const std::string& name, int fd) {
  if (path_.empty() || followed_) return;
  UniqueFd copy(::fcntl(fd, F_DUPFD_CLOEXEC, 0));  // it may be closed before the message goes out
  if (!copy) return log_warn("the service manager cannot keep {}: {}", name, std::strerror(errno));
  // FDPOLL=0: the manager must not poll the descriptor, because this process does.
  send(fmt::format("FDSTORE=1\nFDNAME={}\nFDPOLL=0\n", name), std::move(copy));
}

void ServiceManager::forget(const std::string& name) { send(fmt::format("FDSTOREREMOVE=1\nFDNAME={}\n", name)); }

void ServiceManager::ready(std::string_view text) {
  send(text.empty() ? "READY=1\n" : fmt::format("READY=1\nSTATUS={}\n", text));
  if (watchdog_ns_ > 0 && !path_.empty()) feed_watchdog();
}

void ServiceManager::serves() { send("X_TIDEGATE_SERVES=1\n"); }

void ServiceManager::status(std::string_view text) { send(fmt::format("STATUS={}\n", text)); }

void ServiceManager::reloading() { send(fmt::format("RELOADING=1\nMONOTONIC_USEC={}\n", monotonic_ns() / 1'000)); }

void ServiceManager::reloaded() { send("READY=1\n"); }

void ServiceManager::stopping() { send("STOPPING=1\nSTATUS=stopping\n"); }

void ServiceManager::handed_over(int pid, std::string_view text) {
  send(fmt::format("MAINPID={}\nREADY=1\nSTATUS={}\n", pid, text));
  watchdog_.cancel();
  followed_ = true;
}

std::vector<std::string> ServiceManager::environment() const {
  std::vector<std::string> variables;
  if (!path_.empty() && !followed_) variables.push_back("NOTIFY_SOCKET=" + path_);
  if (!path_.empty() && !followed_ && watchdog_ns_ > 0)
    variables.push_back(fmt::format("WATCHDOG_USEC={}", watchdog_ns_ / 1'000));
  if (!supervisor_pid_.empty()) variables.push_back("TIDEGATE_SUPERVISOR_PID=" + supervisor_pid_);
  return variables;
}

void ServiceManager::feed_watchdog() {
  send("WATCHDOG=1\n");
  watchdog_.arm_after_ns(watchdog_ns_ / 2);
}

}  // namespace tidegate
