// SPDX-License-Identifier: Apache-2.0
// Debian's etcd as a process of the test, on loopback. It has one member, or several. It is ended with the test.
#pragma once

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <string>
#include <vector>

#include "control/etcd/client.h"
#include "tests/unit/control/host.h"

namespace tidegate::testing {

class EtcdServer {
 public:
  explicit EtcdServer(std::vector<std::string> more = {}, std::string scheme = "http")
      : scheme_(std::move(scheme)), more_(std::move(more)), client_port_(free_port()), peer_port_(free_port()) {}
  ~EtcdServer() { kill(); }

  std::string endpoint() const { return scheme_ + "://127.0.0.1:" + std::to_string(client_port_); }

  void start() {
    const std::string peer = "http://127.0.0.1:" + std::to_string(peer_port_);
    std::vector<std::string> words = {"/usr/bin/etcd", "--name=one", "--data-dir=" + (directory_ / "data"),
                                      "--listen-client-urls=" + endpoint(), "--advertise-client-urls=" + endpoint(),
                                      "--listen-peer-urls=" + peer, "--initial-advertise-peer-urls=" + peer,
                                      "--initial-cluster=one=" + peer,
                                      // The times are short. With longer ones, a lease of one second would end later.
                                      "--heartbeat-interval=20", "--election-timeout=100", "--log-level=error"};
    words.insert(words.end(), more_.begin(), more_.end());
    pid_ = ::fork();
    if (pid_ == 0) {
      const std::string log = directory_ / "log";
      if (std::freopen(log.c_str(), "a", stderr) == nullptr) ::_exit(126);
      std::vector<char*> arguments;
      for (std::string& word : words) arguments.push_back(word.data());
      arguments.push_back(nullptr);
      ::execv(arguments[0], arguments.data());
      ::_exit(127);
    }
    ASSERT_GT(pid_, 0);
  }
  // Like a crash. The data stay.
  void kill() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    pid_ = 0;
  }
  void forget_data() const { std::filesystem::remove_all(directory_ / "data"); }
  const TemporaryDirectory& directory() const { return directory_; }

 private:
  // The kernel chooses a free port. If another process takes it before etcd does, the test fails.
  static uint16_t free_port() {
    const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    EXPECT_EQ(::bind(fd, reinterpret_cast<sockaddr*>(&address), size), 0);
    EXPECT_EQ(::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size), 0);
    ::close(fd);
    return ntohs(address.sin_port);
  }

  TemporaryDirectory directory_;
  std::string scheme_;
  std::vector<std::string> more_;
  uint16_t client_port_, peer_port_;
  pid_t pid_ = 0;
};

}  // namespace tidegate::testing
