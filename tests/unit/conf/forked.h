// SPDX-License-Identifier: Apache-2.0
// Another process for a test. It runs a function and exchanges numbers with the test. Fork before anything is opened.
#pragma once

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <utility>

#include "core/fd.h"

namespace tidegate {

constexpr int kPatienceMs = 120'000;  // long enough for a busy machine and for sanitizers

// One end of the conversation. Each number arrives complete.
class Talk {
 public:
  explicit Talk(int fd) : fd_(fd) {}
  void say(uint64_t number) const { EXPECT_EQ(::write(fd_.get(), &number, sizeof number), ssize_t{sizeof number}); }
  // Returns 0 if nothing comes within kPatienceMs, or if the other end is gone.
  uint64_t hear() const {
    pollfd readable{fd_.get(), POLLIN, 0};
    uint64_t number = 0;
    if (::poll(&readable, 1, kPatienceMs) != 1 || ::read(fd_.get(), &number, sizeof number) != ssize_t{sizeof number})
      return 0;
    return number;
  }

 private:
  UniqueFd fd_;
};

class Forked {
 public:
  explicit Forked(const std::function<int(Talk&)>& body) {
    int ends[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    pid_ = ::fork();
    if (pid_ == 0) {
      ::close(ends[0]);
      Talk talk(ends[1]);
      ::_exit(body(talk));
    }
    ::close(ends[1]);
    talk_.emplace(ends[0]);
  }
  ~Forked() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    wait();
  }

  const Talk& talk() const { return *talk_; }
  pid_t pid() const { return pid_; }
  void kill(int signal) const { ::kill(pid_, signal); }
  // Returns the exit status, or minus the signal that ended it.
  int wait() {
    int status = 0;
    ::waitpid(std::exchange(pid_, 0), &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }

 private:
  pid_t pid_ = 0;
  std::optional<Talk> talk_;
};

// A new directory, in memory if there is such a file system. It is removed afterwards.
class TempDir {
 public:
  TempDir() {
    std::string name =
        std::filesystem::exists("/dev/shm") ? "/dev/shm/tidegate-XXXXXX" : ::testing::TempDir() + "XXXXXX";
    EXPECT_NE(::mkdtemp(name.data()), nullptr);
    path_ = name;
  }
  ~TempDir() { std::filesystem::remove_all(path_); }
  const std::string& path() const { return path_; }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

}  // namespace tidegate
