// SPDX-License-Identifier: Apache-2.0
#include "conf/successor.h"

#include <fmt/format.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <utility>

#include "core/limits.h"
#include "core/log.h"

namespace tidegate {
namespace {

constexpr uint64_t kProgressMs = 1'000;
constexpr uint64_t kHungUpMs = 1'000;  // time to wait for the exit status of a process that closed its end
constexpr int kInheritedFd = 3;        // the descriptor number of the new process's end

std::string how_it_ended(int status) {
  if (WIFSIGNALED(status)) return fmt::format("it was ended by signal {}", WTERMSIG(status));
  return fmt::format("it ended with exit status {}", WEXITSTATUS(status));
}

std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> out;
  for (std::string& text : texts) out.push_back(text.data());
  out.push_back(nullptr);
  return out;
}

}  // namespace

Successor::Watch::Watch(EventLoop& loop_in, int fd_in, std::function<void()> fn_in)
    : loop(loop_in), fd(fd_in), fn(std::move(fn_in)) {
  loop.add(fd, EPOLLIN, this);
}

void Successor::Watch::detach() {
  if (fd >= 0) loop.remove(fd);
  fd = -1;
}

// The Watch is destroyed later, because its function may be running now.
void Successor::drop(std::unique_ptr<Watch>& watch) {
  if (!watch) return;
  watch->detach();
  loop_.defer([gone = std::make_shared<std::unique_ptr<Watch>>(std::move(watch))] { gone->reset(); });
}

Successor::Successor(EventLoop& loop, SuccessorOrder order, SuccessorEvents events, HandOverChannel channel)
    : loop_(loop),
      order_(std::move(order)),
      events_(std::move(events)),
      channel_(std::move(channel)),
      deadline_(
          loop,
          [this] {
            give_up(hung_up_ ? "it closed its end" : fmt::format("it was not ready within {} ms", order_.within_ms));
          }),
      progress_(loop, [this] { tell_progress(); }) {}

Result<std::unique_ptr<Successor>> Successor::start(EventLoop& loop, SuccessorOrder order, SuccessorEvents events) {
  Result<std::pair<UniqueFd, UniqueFd>> ends = HandOverChannel::make_pair();
  if (!ends) return ends.error();
  std::unique_ptr<Successor> successor(new Successor(loop, std::move(order), std::move(events),
                                                     HandOverChannel(std::move(ends->first), kHandOverFormats.newest)));
  if (Result<void> spawned = successor->spawn(std::move(ends->second)); !spawned) return spawned.error();
  return successor;
}

// posix_spawn, because other threads run: only what is listed here happens between fork and exec.
Result<void> Successor::spawn(UniqueFd other_end) {
  std::vector<std::string> environment = order_.environment;
  for (char** variable = environ; *variable != nullptr; ++variable) environment.emplace_back(*variable);
  environment.push_back(fmt::format("TIDEGATE_HAND_OVER={}:{}", kInheritedFd, channel_.format()));
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_adddup2(&actions, other_end.get(), kInheritedFd);
  ::posix_spawn_file_actions_addclosefrom_np(&actions, kInheritedFd + 1);
  ::posix_spawnattr_init(&attributes);
  sigset_t none, defaults;
  ::sigemptyset(&none);
  ::sigemptyset(&defaults);
  ::sigaddset(&defaults, SIGPIPE);
  ::posix_spawnattr_setsigmask(&attributes, &none);
  ::posix_spawnattr_setsigdefault(&attributes, &defaults);
  ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  const int error = ::posix_spawn(&pid_, order_.program.c_str(), &actions, &attributes,
                                  pointers(order_.arguments).data(), pointers(environment).data());
  ::posix_spawn_file_actions_destroy(&actions);
  ::posix_spawnattr_destroy(&attributes);
  if (error != 0) {
    pid_ = -1;
    return fail(fmt::format("cannot run {}: {}", order_.program, std::strerror(error)));
  }
  process_.reset(static_cast<int>(::syscall(SYS_pidfd_open, pid_, 0)));
  if (!process_) return fail(std::string("pidfd_open: ") + std::strerror(errno));
  messages_ = std::make_unique<Watch>(loop_, channel_.fd(), [this] { on_message(); });
  end_ = std::make_unique<Watch>(loop_, process_.get(), [this] { on_ended(); });
  deadline_.arm_after_ms(order_.within_ms);
  return {};
}

Successor::~Successor() {
  *alive_ = false;
  if (pid_ <= 0 || serves()) return;
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
}

const char* Successor::step() const {
  switch (step_) {
    case Step::starting:
      return "starting";
    case Step::warming:
      return "warming";
    case Step::letting_go:
      return "letting_go";
    case Step::going:
      return "going";
    case Step::serving:
      return "serving";
    case Step::failed:
      return "failed";
  }
  return "?";
}

// `failed` is called when it has ended, because only then is it certain that it serves nobody.
void Successor::give_up(const std::string& why) {
  if (serves() || step_ == Step::failed) return;
  step_ = Step::failed;
  why_ = why;
  deadline_.cancel();
  drop(messages_);
  channel_.release();
  ::kill(pid_, SIGKILL);
}

void Successor::on_ended() {
  int status = 0;
  if (::waitpid(pid_, &status, WNOHANG) != pid_) return;
  // The process may have sent its last messages just before its end.
  while (messages_ && step_ != Step::failed && channel_.readable()) {
    Result<HandOverReceived> last = channel_.receive(0);
    if (!last) break;
    if (last->message.kind == HandOverKind::refusal) why_ = last->message.text;
  }
  drop(end_);
  deadline_.cancel();
  const bool served = serves();
  pid_ = -1;
  if (served) return log_warn("the process that followed this one: {}", how_it_ended(status));
  step_ = Step::failed;
  drop(messages_);
  const auto failed = events_.failed;
  failed(why_.empty() ? how_it_ended(status) : why_);
}

void Successor::on_message() {
  Result<HandOverReceived> received = channel_.receive(0);
  if (received) return take(received->message);
  drop(messages_);
  if (serves()) return;
  // The other end of the channel is closed. If the new process has ended, its exit status comes next and says more. If
  // no exit status comes in time, the process still runs, and it is given up.
  if (received.error().message != "it ended") return give_up(received.error().message);
  hung_up_ = true;
  deadline_.arm_after_ms(std::min<uint64_t>(order_.within_ms, kHungUpMs));
}

void Successor::take(const HandOverMessage& message) {
  const HandOverKind kind = message.kind;
  if (kind == HandOverKind::refusal) return give_up(message.text.empty() ? "it refuses" : message.text);
  if (step_ == Step::starting && kind == HandOverKind::hello) return greet(message);
  if (step_ == Step::warming && kind == HandOverKind::warm) {
    events_.step("warm", message.text);
    return let_go();
  }
  if (step_ == Step::going && kind == HandOverKind::serving) {
    step_ = Step::serving;
    deadline_.cancel();
    events_.served();
    return tell_progress();  // after the service manager was told who follows
  }
  give_up(fmt::format("it said {} out of turn", name(kind)));
}

void Successor::greet(const HandOverMessage& hello) {
  std::vector<std::string> lines(1);
  for (const char c : hello.text) {
    if (c == '\n') lines.emplace_back();
    if (c != '\n') lines.back().push_back(c);
  }
  lines.resize(std::max<size_t>(lines.size(), 3));
  if (lines[0] != order_.plane) {
    return give_up(fmt::format("{} is tidegate-{:.32}, not tidegate-{}", order_.program, lines[0], order_.plane));
  }
  events_.step("hello", lines[1]);
  if (lines[2] != order_.data_format) {
    events_.step("data", fmt::format("the disk's data begins empty: its format changes from {} to {}",
                                     order_.data_format, lines[2]));
  }
  send_sockets();
}

void Successor::send_sockets() {
  std::vector<LentSocket> sockets = events_.sockets();
  std::erase_if(sockets, [this](const LentSocket& each) { return !is_in_format(each.item.kind, channel_.format()); });
  if (sockets.size() > kHandOverSockets) return give_up("there are more sockets than can be handed over");
  for (size_t at = 0; at < sockets.size();) {
    HandOverMessage message{HandOverKind::sockets, 0, {}, {}};
    std::vector<int> descriptors;
    for (; at < sockets.size() && descriptors.size() < kHandOverItems; ++at) {
      message.items.push_back(sockets[at].item);
      descriptors.push_back(sockets[at].fd);
    }
    if (Result<void> sent = channel_.send(message, descriptors); !sent) return give_up(sent.error().message);
  }
  const HandOverMessage all{HandOverKind::all_sockets, sockets.size(), std::to_string(order_.generation), {}};
  if (Result<void> sent = channel_.send(all); !sent) return give_up(sent.error().message);
  step_ = Step::warming;
  events_.step("sockets", std::to_string(sockets.size()));
}

void Successor::let_go() {
  step_ = Step::letting_go;
  if (!events_.let_go) return go({});
  events_.let_go([this, alive = alive_](UniqueFd lock) {
    if (*alive) go(std::move(lock));
  });
}

void Successor::go(UniqueFd lock) {
  if (step_ != Step::letting_go) return;
  step_ = Step::going;
  HandOverMessage message{HandOverKind::go, 0, {}, {}};
  std::vector<int> descriptors;
  if (lock) {
    message.items.push_back({HandOverItemKind::lock, {}});
    descriptors.push_back(lock.get());
  }
  if (Result<void> sent = channel_.send(message, descriptors); !sent) return give_up(sent.error().message);
  events_.step("let_go", {});
}

void Successor::tell_progress() {
  if (!messages_) return;  // it has ended
  const size_t left = events_.connections ? events_.connections() : 0;
  // If the peer did not read this message, it gets the state with the next one.
  (void)channel_.send({HandOverKind::progress, left, std::to_string(::getpid()), {}});
  progress_.arm_after_ms(kProgressMs);
}

}  // namespace tidegate
