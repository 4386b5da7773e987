// SPDX-License-Identifier: Apache-2.0
#include "l7/observe/log_sink.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "core/clock.h"
#include "core/fd.h"
#include "core/log.h"

namespace tidegate::l7 {
namespace {

class FileLogSink final : public LogSink {
 public:
  explicit FileLogSink(const LogTarget& target)
      : path_(target.kind == LogTarget::Kind::standard_output ? "-" : target.path) {}

  Result<void> open() override {
    UniqueFd file(path_ == "-" ? ::fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 0)
                               : ::open(path_.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0640));
    if (!file) return fail(fmt::format("cannot open the access log {}: {}", path_, std::strerror(errno)));
    file_ = std::move(file);
    return {};
  }

  ssize_t write(std::string_view waiting) override { return ::write(file_.get(), waiting.data(), waiting.size()); }

  // True if the file was renamed, and a new one with its name can be opened.
  bool moved() override {
    if (path_ == "-") return false;
    struct stat named {
    }, open_file{};
    if (::fstat(file_.get(), &open_file) != 0) return false;
    const bool same =
        ::stat(path_.c_str(), &named) == 0 && named.st_ino == open_file.st_ino && named.st_dev == open_file.st_dev;
    return !same && static_cast<bool>(open());  // otherwise the old file is kept until the new one can be created
  }

  std::string where() const override { return path_; }

 private:
  const std::string path_;
  UniqueFd file_;
};

// Each line is one datagram (RFC 5424 over RFC 5426, or over the socket of this host), without its newline.
class SyslogSink final : public LogSink {
 public:
  SyslogSink(const LogTarget& target, Counter& dropped) : target_(target), dropped_(dropped) {}

  Result<void> open() override {
    (void)connect();
    return {};
  }

  ssize_t write(std::string_view waiting) override {
    const size_t end = waiting.find('\n');
    if (end == std::string_view::npos) {  // the ring's end is within the line
      begun_ += waiting;
      return static_cast<ssize_t>(waiting.size());
    }
    const std::string_view rest = waiting.substr(0, end);
    if (begun_.empty()) {
      if (!send(rest)) return -1;
    } else {
      const size_t before = begun_.size();
      begun_ += rest;
      if (!send(begun_)) {
        begun_.resize(before);
        return -1;
      }
      begun_.clear();
    }
    return static_cast<ssize_t>(end + 1);
  }

  std::string where() const override {
    return "syslog:" + (target_.kind == LogTarget::Kind::syslog_socket ? target_.path : target_.collector.to_string());
  }

 private:
  static constexpr int kRoomMs = 50;  // how long to wait for a collector that is reading to make room
  static constexpr uint64_t kTellRefusedNs = 60 * kNsPerS;

  bool connect() {
    sockaddr_storage address{};
    socklen_t length = 0;
    if (target_.kind == LogTarget::Kind::syslog_socket) {
      auto* const local = reinterpret_cast<sockaddr_un*>(&address);
      local->sun_family = AF_UNIX;
      target_.path.copy(local->sun_path, sizeof local->sun_path - 1);
      length = sizeof *local;
    } else {
      length = target_.collector.to_sockaddr(address);
    }
    UniqueFd fd(::socket(address.ss_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!fd || ::connect(fd.get(), reinterpret_cast<sockaddr*>(&address), length) != 0) return false;
    socket_ = std::move(fd);
    return true;
  }

  // Returns false with errno. Then the line is given again, unless it can never be sent.
  bool send(std::string_view line) {
    if (!socket_ && !connect()) return false;
    for (int tries = 0;; ++tries) {
      if (::send(socket_.get(), line.data(), line.size(), MSG_NOSIGNAL) >= 0) return true;
      const int error = errno;
      if (error == EINTR) continue;
      if (error == EMSGSIZE) {
        dropped_.add();
        return true;
      }
      if (tries == 0 && (error == EAGAIN || error == ENOBUFS)) {
        pollfd room{socket_.get(), POLLOUT, 0};
        ::poll(&room, 1, kRoomMs);
        continue;
      }
      if (error == EAGAIN || error == ENOBUFS) {
        errno = EAGAIN;
        return false;
      }
      const bool udp = target_.kind == LogTarget::Kind::syslog_udp;
      if (udp && error == ECONNREFUSED) {
        note_refused();
        if (tries == 0) continue;
      }
      if (!udp) socket_.reset();  // the collector has gone, or was restarted
      if (!udp && tries == 0 && connect()) continue;
      errno = error;
      return false;
    }
  }

  // The collector's host reports that nobody has taken the previous line.
  void note_refused() {
    dropped_.add();
    const uint64_t now_ns = monotonic_ns();
    if (told_refused_ns_ != 0 && now_ns - told_refused_ns_ < kTellRefusedNs) return;
    told_refused_ns_ = now_ns;
    log_error("nobody takes the access log at {}; its lines are lost and counted", where());
  }

  const LogTarget target_;
  Counter& dropped_;
  UniqueFd socket_;
  uint64_t told_refused_ns_ = 0;
  std::string begun_;  // the beginning of a line whose end was not given yet
};

}  // namespace

std::unique_ptr<LogSink> make_log_sink(const LogTarget& target, Counter& dropped) {
  switch (target.kind) {
    case LogTarget::Kind::none:
      break;
    case LogTarget::Kind::file:
    case LogTarget::Kind::standard_output:
      return std::make_unique<FileLogSink>(target);
    case LogTarget::Kind::syslog_socket:
    case LogTarget::Kind::syslog_udp:
      return std::make_unique<SyslogSink>(target, dropped);
  }
  return nullptr;
}

}  // namespace tidegate::l7
