// SPDX-License-Identifier: Apache-2.0
#include "core/service_manager.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>

#include "core/clock.h"

namespace tidegate::service_manager_test {

using ::testing::StartsWith;

// A stand-in for a service manager: a datagram socket and variables.
class Manager {
 public:
  // `name`: a path, or '@' and an abstract name.
  explicit Manager(const std::string& name, const std::string& watchdog_us = {}, pid_t watchdog_pid = ::getpid()) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, name.data(), name.size());
    if (name[0] == '@') address.sun_path[0] = '\0';
    socket_.reset(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    EXPECT_EQ(::bind(socket_.get(), reinterpret_cast<sockaddr*>(&address),
                     static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + name.size())),
              0)
        << std::strerror(errno);
    ::setenv("NOTIFY_SOCKET", name.c_str(), 1);
    if (watchdog_us.empty()) return;
    ::setenv("WATCHDOG_USEC", watchdog_us.c_str(), 1);
    ::setenv("WATCHDOG_PID", std::to_string(watchdog_pid).c_str(), 1);
  }
  // The next message, with the descriptor that came with it.
  std::pair<std::string, UniqueFd> heard_with_descriptor() {
    char bytes[4096];
    iovec vector{bytes, sizeof bytes};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
    msghdr header{};
    header.msg_iov = &vector;
    header.msg_iovlen = 1;
    header.msg_control = control;
    header.msg_controllen = sizeof control;
    const ssize_t got = ::recvmsg(socket_.get(), &header, MSG_CMSG_CLOEXEC);
    int fd = -1;
    const cmsghdr* const part = got > 0 ? CMSG_FIRSTHDR(&header) : nullptr;
    if (part != nullptr) std::memcpy(&fd, CMSG_DATA(part), sizeof fd);
    return {got > 0 ? std::string(bytes, static_cast<size_t>(got)) : std::string(), UniqueFd(fd)};
  }
  // The next message; empty if there is none.
  std::string heard() {
    char bytes[4096];
    const ssize_t got = ::recv(socket_.get(), bytes, sizeof bytes, 0);
    return got > 0 ? std::string(bytes, static_cast<size_t>(got)) : std::string();
  }

 private:
  UniqueFd socket_;
};

TEST(ServiceManager, HearsWhichProcessFollowsAndNothingMoreFromThisOne) {
  const std::string name = "@tidegate-test-followed-" + std::to_string(::getpid());
  Manager manager(name, "20000");
  EventLoop loop;
  ServiceManager service(loop);
  EXPECT_THAT(service.environment(), ::testing::ElementsAre("NOTIFY_SOCKET=" + name, "WATCHDOG_USEC=20000"));
  service.ready("version 3");
  EXPECT_EQ(manager.heard(), "READY=1\nSTATUS=version 3\n");
  EXPECT_EQ(manager.heard(), "WATCHDOG=1\n");
  service.handed_over(42, "process 42 follows");
  EXPECT_EQ(manager.heard(), "MAINPID=42\nREADY=1\nSTATUS=process 42 follows\n");
  service.stopping();
  const uint64_t end_ns = loop.now_ns() + 60'000'000;  // three watchdog times
  while (loop.now_ns() < end_ns) loop.run_once(10'000'000);
  EXPECT_EQ(manager.heard(), "");
  EXPECT_THAT(service.environment(), ::testing::IsEmpty());
}

TEST(ServiceManager, TellsWhenTheSupervisorEndsAlsoAfterAHandOver) {
  const pid_t supervisor = ::fork();
  if (supervisor == 0) {
    ::pause();
    ::_exit(0);
  }
  ::setenv("TIDEGATE_SUPERVISOR_PID", std::to_string(supervisor).c_str(), 1);
  EventLoop loop;
  ServiceManager service(loop);
  EXPECT_EQ(std::getenv("TIDEGATE_SUPERVISOR_PID"), nullptr);
  EXPECT_THAT(service.environment(), ::testing::ElementsAre("TIDEGATE_SUPERVISOR_PID=" + std::to_string(supervisor)));
  service.handed_over(42, "process 42 follows");
  int told = 0;
  service.on_gone = [&] { ++told; };
  loop.run_once(0);
  EXPECT_EQ(told, 0);
  ::kill(supervisor, SIGKILL);
  while (told == 0) loop.run_once(kNsPerS);
  loop.run_once(0);
  EXPECT_EQ(told, 1);
  ::waitpid(supervisor, nullptr, 0);
}

TEST(ServiceManager, ASupervisorThatIsNoProcessIsIgnored) {
  for (const char* pid : {"nonsense", "0", "99999999999999999999"}) {
    ::setenv("TIDEGATE_SUPERVISOR_PID", pid, 1);
    EventLoop loop;
    const ServiceManager service(loop);
    EXPECT_THAT(service.environment(), ::testing::IsEmpty()) << pid;
  }
}

TEST(ServiceManager, HearsReadyStatusReloadAndTheEnd) {
  const std::string path = std::filesystem::temp_directory_path() / ("tidegate-notify-" + std::to_string(::getpid()));
  ::unlink(path.c_str());
  for (const std::string& name : {path, "@tidegate-test-" + std::to_string(::getpid())}) {
    Manager manager(name);
    EventLoop loop;
    ServiceManager service(loop);
    EXPECT_EQ(std::getenv("NOTIFY_SOCKET"), nullptr) << "a child must not speak for us";
    service.ready("version 3");
    EXPECT_EQ(manager.heard(), "READY=1\nSTATUS=version 3\n");
    service.status("version 4");
    EXPECT_EQ(manager.heard(), "STATUS=version 4\n");
    service.reloading();
    EXPECT_THAT(manager.heard(), StartsWith("RELOADING=1\nMONOTONIC_USEC="));
    service.reloaded();
    EXPECT_EQ(manager.heard(), "READY=1\n");
    service.stopping();
    EXPECT_THAT(manager.heard(), StartsWith("STOPPING=1\n"));
    loop.run_once(0);
    EXPECT_EQ(manager.heard(), "") << "nobody asked for a watchdog";
  }
  ::unlink(path.c_str());
}

TEST(ServiceManager, HearsOfTheTurningLoopOnceItIsReady) {
  Manager manager("@tidegate-watchdog-" + std::to_string(::getpid()), "20000");
  EventLoop loop;
  ServiceManager service(loop);
  loop.run_once(0);
  EXPECT_EQ(manager.heard(), "") << "a start may take longer than the watchdog allows";
  service.ready("up");
  EXPECT_THAT(manager.heard(), StartsWith("READY=1\n"));
  for (int i = 0; i < 3; ++i) {
    std::string heard = manager.heard();
    for (; heard.empty(); heard = manager.heard()) loop.run_once(1'000'000'000);
    EXPECT_EQ(heard, "WATCHDOG=1\n");
  }
}

TEST(ServiceManager, WatchesThisProcessOnly) {
  Manager manager("@tidegate-other-" + std::to_string(::getpid()), "1", ::getpid() + 1);
  EventLoop loop;
  ServiceManager service(loop);
  service.ready("up");
  EXPECT_THAT(manager.heard(), StartsWith("READY=1\n"));
  loop.run_once(1'000'000);
  EXPECT_EQ(manager.heard(), "");
}

ino_t inode_of(int fd) {
  struct stat facts {};
  EXPECT_EQ(::fstat(fd, &facts), 0);
  return facts.st_ino;
}

TEST(ServiceManager, KeepsACopyOfADescriptorUnderItsName) {
  Manager manager("@tidegate-keep-" + std::to_string(::getpid()));
  EventLoop loop;
  ServiceManager service(loop);
  UniqueFd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const ino_t inode = inode_of(socket.get());
  service.keep("tcp-1", socket.get());
  socket.reset();
  const auto [text, copy] = manager.heard_with_descriptor();
  EXPECT_EQ(text, "FDSTORE=1\nFDNAME=tcp-1\nFDPOLL=0\n");
  EXPECT_EQ(inode_of(copy.get()), inode);
  service.forget("tcp-1");
  EXPECT_EQ(manager.heard(), "FDSTOREREMOVE=1\nFDNAME=tcp-1\n");
  service.handed_over(42, "");
  manager.heard();
  service.keep("tcp-2", copy.get());
  EXPECT_EQ(manager.heard(), "") << "another process speaks now";
}

// The kernel's queue of a manager holds few messages. The others wait, in order, with their descriptors.
TEST(ServiceManager, IsToldEverythingInOrderHoweverSlowlyItListens) {
  Manager manager("@tidegate-slow-" + std::to_string(::getpid()));
  EventLoop loop;
  ServiceManager service(loop);
  const UniqueFd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  constexpr int kMany = 700;
  for (int i = 0; i < kMany; ++i) service.keep(std::to_string(i), socket.get());
  service.handed_over(42, "last");
  for (int i = 0; i < kMany; ++i) {
    auto heard = manager.heard_with_descriptor();
    while (heard.first.empty()) {
      loop.run_once(kNsPerS);
      heard = manager.heard_with_descriptor();
    }
    ASSERT_EQ(heard.first, "FDSTORE=1\nFDNAME=" + std::to_string(i) + "\nFDPOLL=0\n");
    ASSERT_EQ(inode_of(heard.second.get()), inode_of(socket.get()));
  }
  std::string last = manager.heard();
  for (; last.empty(); last = manager.heard()) loop.run_once(kNsPerS);
  EXPECT_THAT(last, StartsWith("MAINPID=42\n"));
}

// A manager gives a process descriptors from 3 on, so this runs in its own process.
std::string names_taken(const std::string& pid, const std::string& count, const std::string& names, int given) {
  int answer[2];
  EXPECT_EQ(::pipe(answer), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    const int out = ::dup2(answer[1], 100);
    for (int fd = 3; fd < 100; ++fd) ::close(fd);
    for (int i = 0; i < given; ++i) ::dup2(::socket(AF_INET, SOCK_DGRAM, 0), 3 + i);
    ::setenv("LISTEN_PID", (pid == "own" ? std::to_string(::getpid()) : pid).c_str(), 1);
    ::setenv("LISTEN_FDS", count.c_str(), 1);
    ::setenv("LISTEN_FDNAMES", names.c_str(), 1);
    std::string told;
    {
      EventLoop loop;
      ServiceManager service(loop);
      for (const auto& [name, fd] : service.take_kept()) told += name + (fd.get() >= 3 ? ";" : "?");
      if (!service.take_kept().empty() || std::getenv("LISTEN_FDS") != nullptr) told += "again";
    }
    (void)!::write(out, told.data(), told.size());
    ::_exit(0);
  }
  ::close(answer[1]);
  char bytes[256];
  const ssize_t got = ::read(answer[0], bytes, sizeof bytes);
  ::close(answer[0]);
  ::waitpid(child, nullptr, 0);
  return got > 0 ? std::string(bytes, static_cast<size_t>(got)) : std::string();
}

TEST(ServiceManager, GivesWhatItKeptToTheProcessThatItMeansAlone) {
  EXPECT_EQ(names_taken("own", "2", "tcp-a:udp-b", 2), "tcp-a;udp-b;");
  EXPECT_EQ(names_taken("own", "2", "tcp-a", 2), "tcp-a;;") << "a name is missing";
  EXPECT_EQ(names_taken("1", "2", "tcp-a:udp-b", 2), "");
  EXPECT_EQ(names_taken("own", "many", "tcp-a", 1), "");
}

TEST(ServiceManager, MayBeAbsentOrNonsense) {
  for (const char* name : {"", "x", "@", "relative/path"}) {
    ::setenv("NOTIFY_SOCKET", name, 1);
    ::setenv("WATCHDOG_USEC", "many", 1);
    EventLoop loop;
    ServiceManager service(loop);
    service.ready("up");
    service.stopping();
    EXPECT_EQ(std::getenv("WATCHDOG_USEC"), nullptr);
  }
  ::setenv("NOTIFY_SOCKET", "/nowhere/at/all", 1);
  EventLoop loop;
  ServiceManager service(loop);
  service.ready("up");  // logs a warning
}

}  // namespace tidegate::service_manager_test
