// SPDX-License-Identifier: Apache-2.0
#include "core/service_manager.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
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

// What a service manager is to a daemon: a datagram socket and variables.
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
  service.ready("up");  // warns
}

}  // namespace tidegate::service_manager_test
