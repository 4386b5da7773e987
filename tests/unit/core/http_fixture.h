// SPDX-License-Identifier: Apache-2.0
// Shared by the tests of the HTTP server and client: a loop that the test runs, and a client and a server that use raw
// bytes.
#pragma once

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>

#include "core/clock.h"
#include "core/event_loop.h"
#include "core/fd.h"
#include "core/ip.h"

namespace tidegate {

// Runs the loop until `reached` holds. Returns false if it does not hold within ten seconds.
template <class Predicate>
bool turn_until(EventLoop& loop, Predicate&& reached) {
  const uint64_t deadline_ns = monotonic_ns() + 60 * kNsPerS;
  while (!reached()) {
    if (monotonic_ns() > deadline_ns) return false;
    loop.run_once(kNsPerMs);
  }
  return true;
}

inline UniqueFd connect_tcp(const Endpoint& to) {
  sockaddr_storage address{};
  const socklen_t length = to.to_sockaddr(address);
  UniqueFd fd(::socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  EXPECT_EQ(::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), length), 0) << std::strerror(errno);
  return fd;
}

inline UniqueFd connect_unix(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  EXPECT_EQ(::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0)
      << std::strerror(errno);
  return fd;
}

// A client that sends exactly the bytes it is given, on the loop of its server.
class RawClient {
 public:
  RawClient(EventLoop& loop, UniqueFd fd) : loop_(loop), fd_(std::move(fd)) {}

  void send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t sent = ::send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
      if (sent < 0 && errno != EAGAIN) return;  // the server has closed, but what it sent can still be read
      if (sent > 0) bytes.remove_prefix(static_cast<size_t>(sent));
      if (sent < 0) loop_.run_once(kNsPerMs);
    }
  }
  void finish_sending() { ::shutdown(fd_.get(), SHUT_WR); }
  void close() { fd_.reset(); }

  // Reads everything until the server closes.
  std::string read_all() {
    EXPECT_TRUE(turn_until(loop_, [this] { return !read_some(); })) << received_;
    return received_;
  }
  // Reads until `text` has come `times` times.
  std::string read_until(std::string_view text, size_t times = 1) {
    EXPECT_TRUE(turn_until(loop_, [&] { return read_some(), count(text) >= times; })) << received_;
    return received_;
  }
  size_t count(std::string_view text) const {
    size_t found = 0;
    for (size_t at = 0; (at = received_.find(text, at)) != std::string::npos; at += text.size()) ++found;
    return found;
  }

 private:
  bool read_some() {
    char buffer[64 * 1024];
    const ssize_t got = ::recv(fd_.get(), buffer, sizeof buffer, MSG_DONTWAIT);
    if (got > 0) received_.append(buffer, static_cast<size_t>(got));
    return got > 0 || (got < 0 && errno == EAGAIN);
  }

  EventLoop& loop_;
  UniqueFd fd_;
  std::string received_;
};

// A listening socket on loopback. The test answers its connections itself.
class RawServer {
 public:
  RawServer() : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_storage address{};
    socklen_t length = Endpoint::parse("127.0.0.1:0")->to_sockaddr(address);
    EXPECT_EQ(::bind(fd_.get(), reinterpret_cast<const sockaddr*>(&address), length), 0);
    EXPECT_EQ(::listen(fd_.get(), 8), 0);
    EXPECT_EQ(::getsockname(fd_.get(), reinterpret_cast<sockaddr*>(&address), &length), 0);
    endpoint_ = Endpoint::from(address);
  }
  const Endpoint& endpoint() const { return endpoint_; }
  // Returns the next connection. Blocks until there is one.
  UniqueFd accept() { return UniqueFd(::accept4(fd_.get(), nullptr, nullptr, SOCK_CLOEXEC)); }

 private:
  UniqueFd fd_;
  Endpoint endpoint_;
};

class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    char pattern[] = "/tmp/tidegate-core-XXXXXX";
    path_ = ::mkdtemp(pattern);
  }
  ~TemporaryDirectory() { std::filesystem::remove_all(path_); }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

}  // namespace tidegate
