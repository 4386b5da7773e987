// SPDX-License-Identifier: Apache-2.0
// A new process that replaces this one: a real one (this test program in another role), and programs that do not work.
#include "conf/successor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <optional>

#include "conf/predecessor.h"
#include "conf/socket_store.h"
#include "core/shared_port.h"
#include "tests/unit/conf/forked.h"

namespace tidegate::successor_test {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// The other role. It runs only in a process that this test starts.
TEST(SuccessorRole, DISABLED_Follows) {
  Result<std::unique_ptr<Predecessor>> before = Predecessor::from_environment();
  ASSERT_TRUE(before) << before.error().message;
  ASSERT_NE(*before, nullptr);
  ASSERT_EQ(std::getenv("TIDEGATE_HAND_OVER"), nullptr);
  auto sockets = (*before)->take_sockets("test", "data 1");
  ASSERT_TRUE(sockets) << sockets.error().message;
  ASSERT_EQ((*before)->generation(), 4U);
  const Result<UniqueFd> lock = (*before)->warm("version 9");
  ASSERT_TRUE(lock && *lock);
  Result<UniqueFd> channel = (*before)->serving();
  ASSERT_TRUE(channel);
  // Answers one connection on the socket that it took over, and receives the old process's end.
  const UniqueFd client(::accept(sockets->at(0).second.get(), nullptr, nullptr));
  ASSERT_EQ(::send(client.get(), "new", 3, 0), 3);
  EventLoop loop;
  DrainingProcesses draining(loop);
  draining.add(*std::move(channel));
  while (draining.size() > 0) loop.run_once(1'000'000'000);
}

struct Outcome {
  bool served = false;
  std::optional<std::string> failed;
  std::vector<std::string> steps;
};

class SuccessorTest : public ::testing::Test {
 protected:
  void start(const std::string& program, std::vector<std::string> arguments, uint64_t within_ms = 60'000) {
    SuccessorOrder order;
    order.program = program;
    order.arguments = std::move(arguments);
    order.within_ms = within_ms;
    order.plane = "test";
    order.data_format = "data 1";
    order.generation = 4;
    SuccessorEvents events;
    events.sockets = [this] { return sockets_; };
    events.let_go = [this](const std::function<void(UniqueFd)>& done) {
      let_go_ = true;
      done(UniqueFd(::dup(STDIN_FILENO)));
    };
    events.step = [this](const std::string& step, const std::string&) { outcome_.steps.push_back(step); };
    events.served = [this] { outcome_.served = true; };
    events.failed = [this](const std::string& why) { outcome_.failed = why; };
    events.connections = [] { return size_t{1}; };
    Result<std::unique_ptr<Successor>> started = Successor::start(loop_, std::move(order), std::move(events));
    if (started) successor_ = *std::move(started);
    if (!started) outcome_.failed = started.error().message;
  }
  void start_self() {
    start("/proc/self/exe", {"conf_test", "--gtest_also_run_disabled_tests", "--gtest_filter=SuccessorRole.*"});
  }
  void shell(const std::string& script, uint64_t within_ms = 60'000) {
    start("/bin/sh", {"sh", "-c", script}, within_ms);
  }
  std::string failure() {
    run_until([this] { return outcome_.failed.has_value() || outcome_.served; });
    return outcome_.failed.value_or("it did not fail");
  }
  void run_until(const std::function<bool()>& done) {
    const uint64_t end_ns = loop_.now_ns() + uint64_t{kPatienceMs} * 1'000'000;
    while (!done() && loop_.now_ns() < end_ns) loop_.run_once(100'000'000);
  }

  EventLoop loop_;
  std::vector<LentSocket> sockets_;
  std::unique_ptr<Successor> successor_;
  Outcome outcome_;
  bool let_go_ = false;
};

TEST_F(SuccessorTest, TheNewProcessAnswersOnTheOldSocketAndHearsTheOldOneEnd) {
  const Result<UniqueFd> listening = bind_shared_port(*Endpoint::parse("127.0.0.1:0"), SOCK_STREAM);
  ASSERT_TRUE(listening && ::listen(listening->get(), 4) == 0);
  sockaddr_storage address{};
  socklen_t bytes = sizeof address;
  ::getsockname(listening->get(), reinterpret_cast<sockaddr*>(&address), &bytes);
  sockets_.assign(70, {{HandOverItemKind::stream, Endpoint::from(address)}, listening->get()});  // two messages
  // The connection waits in the queue before there is a new process.
  const UniqueFd client(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  ASSERT_EQ(::connect(client.get(), reinterpret_cast<sockaddr*>(&address), bytes), 0);
  start_self();
  run_until([this] { return outcome_.served || outcome_.failed; });
  ASSERT_TRUE(outcome_.served) << *outcome_.failed;
  EXPECT_THAT(outcome_.steps, ElementsAre("hello", "sockets", "warm", "let_go"));
  char answer[4]{};
  EXPECT_EQ(::recv(client.get(), answer, 3, MSG_WAITALL), 3);
  EXPECT_STREQ(answer, "new");
  const pid_t pid = successor_->pid();
  successor_.reset();  // as at this process's end: the new process notices it, but is not ended
  int status = -1;
  EXPECT_EQ(::waitpid(pid, &status, 0), pid);
  EXPECT_EQ(status, 0);
}

TEST_F(SuccessorTest, AProgramThatIsNoGoodIsNamedAndHasEnded) {
  shell("exit 3");
  EXPECT_THAT(failure(), HasSubstr("exit status 3"));
  outcome_ = {};
  shell("kill -SEGV $$");
  EXPECT_THAT(failure(), HasSubstr("signal 11"));
  outcome_ = {};
  shell("exec sleep 1000", 50);
  EXPECT_THAT(failure(), HasSubstr("not ready within 50 ms"));
  outcome_ = {};
  shell("exec 3>&-; exec sleep 1000", 60'000);
  EXPECT_EQ(failure(), "it closed its end");
  outcome_ = {};
  start("/nowhere/at/all", {"all"});
  EXPECT_THAT(failure(), HasSubstr("No such file"));
  EXPECT_FALSE(let_go_);
  EXPECT_FALSE(outcome_.served);
}

TEST_F(SuccessorTest, OneThatIsGivenUpEndsWithTheReason) {
  shell("exec sleep 1000");
  ASSERT_TRUE(successor_);
  successor_->give_up("the old process was told to stop");
  EXPECT_EQ(failure(), "the old process was told to stop");
}

TEST(PredecessorTest, AMalformedVariableIsRefused) {
  for (const char* text : {"", "x", "3", "99999:1", "0:1", "1:x", "1:1"}) {
    ::setenv("TIDEGATE_HAND_OVER", text, 1);
    EXPECT_FALSE(Predecessor::from_environment()) << text;
    EXPECT_EQ(std::getenv("TIDEGATE_HAND_OVER"), nullptr);
  }
  EXPECT_EQ(*Predecessor::from_environment(), nullptr);
}

// The messages to the service manager about kept sockets, as "+tcp-127.0.0.1-PORT" and "-tcp-127.0.0.1-PORT".
class StoreTest : public ::testing::Test {
 protected:
  StoreTest() {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path + 1, path_.data() + 1, path_.size() - 1);
    heard_.reset(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    EXPECT_EQ(::bind(heard_.get(), reinterpret_cast<sockaddr*>(&address),
                     static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path_.size())),
              0);
    ::setenv("NOTIFY_SOCKET", path_.c_str(), 1);
    manager_.emplace(loop_);
  }
  std::vector<std::string> heard() {
    std::vector<std::string> told;
    char bytes[1024];
    for (ssize_t got; (got = ::recv(heard_.get(), bytes, sizeof bytes, 0)) > 0;) {
      const std::string text(bytes, static_cast<size_t>(got));
      const size_t name = text.find("FDNAME=") + 7;
      told.push_back((text.starts_with("FDSTORE=1") ? "+" : "-") + text.substr(name, text.rfind('-') - name));
    }
    std::sort(told.begin(), told.end());
    return told;
  }
  static LentSocket listening(HandOverItemKind kind, std::vector<UniqueFd>& sockets, uint16_t port = 0) {
    const int type = kind == HandOverItemKind::datagram ? SOCK_DGRAM : SOCK_STREAM;
    sockets.push_back(bind_shared_port({*IpAddress::parse("127.0.0.1"), port}, type).value());
    sockaddr_storage address{};
    socklen_t bytes = sizeof address;
    ::getsockname(sockets.back().get(), reinterpret_cast<sockaddr*>(&address), &bytes);
    if (type == SOCK_STREAM) ::listen(sockets.back().get(), 5);
    return {{kind, Endpoint::from(address)}, sockets.back().get()};
  }

  const std::string path_ = "@tidegate-store-" + std::to_string(::getpid());
  UniqueFd heard_;
  EventLoop loop_;
  std::optional<ServiceManager> manager_;
};

TEST_F(StoreTest, TheManagerKeepsWhatThePlaneListensOnAndNothingElse) {
  SocketStore store(*manager_);
  std::vector<UniqueFd> sockets;
  const LentSocket web = listening(HandOverItemKind::stream, sockets);
  const LentSocket twin = listening(HandOverItemKind::stream, sockets, web.item.endpoint.port);
  const LentSocket names = listening(HandOverItemKind::datagram, sockets);
  const std::string tcp = "tcp-127.0.0.1-" + std::to_string(web.item.endpoint.port);
  const std::string udp = "udp-127.0.0.1-" + std::to_string(names.item.endpoint.port);
  LentSocket chosen = names;
  chosen.item.endpoint.port = 0;
  const LentSocket lock{{HandOverItemKind::lock, {}}, names.fd};
  store.keep({web, twin, names, chosen, lock});
  EXPECT_THAT(heard(), ElementsAre("+" + tcp, "+" + tcp, "+" + udp)) << "each socket of a group for itself";
  store.keep({web, twin, names});
  EXPECT_THAT(heard(), ElementsAre()) << "nothing changed";
  store.keep({twin, names});
  EXPECT_THAT(heard(), ElementsAre("-" + tcp));
  EXPECT_EQ(store.kept(), 2u);
  store.forget_all();
  EXPECT_THAT(heard(), ElementsAre("-" + tcp, "-" + udp));
}

TEST_F(StoreTest, AProcessThatFollowsForgetsWhatItDoesNotListenOn) {
  SocketStore store(*manager_);
  std::vector<UniqueFd> sockets;
  const LentSocket used = listening(HandOverItemKind::stream, sockets);
  const LentSocket unused = listening(HandOverItemKind::datagram, sockets);
  store.expect(used);
  store.expect(unused);
  store.keep({used});
  EXPECT_THAT(heard(), ElementsAre("-udp-127.0.0.1-" + std::to_string(unused.item.endpoint.port)));
}

}  // namespace tidegate::successor_test
