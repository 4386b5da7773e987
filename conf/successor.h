// SPDX-License-Identifier: Apache-2.0
// Successor: the new process that is to replace this one, from its start until this process has ended. It is a child of
// this process, has the same arguments, and uses a socket pair to talk to this process (core/hand_over.h). Until the
// new process serves, this process gives up only what `let_go` gives up. Main thread.
#pragma once

#include <sys/types.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "conf/upgrade_hooks.h"
#include "core/event_loop.h"
#include "core/hand_over.h"
#include "core/result.h"

namespace tidegate {

struct SuccessorOrder {
  std::string program;                   // its path
  std::vector<std::string> arguments;    // [0] is the program's name
  std::vector<std::string> environment;  // further variables, as NAME=VALUE
  uint64_t within_ms = 60'000;           // from its start until it serves
  std::string plane;                     // "l7": the plane that it must be
  std::string data_format;               // UpgradeHooks::data_format of this process
  uint64_t generation = 1;               // of this process
};

struct SuccessorEvents {
  std::function<std::vector<LentSocket>()> sockets;
  std::function<void(std::function<void(UniqueFd lock)> done)> let_go;
  std::function<void(const std::string& step, const std::string& detail)> step;
  std::function<void()> served;
  // It has ended without serving. The Successor may be destroyed in this call.
  std::function<void(const std::string& why)> failed;
  std::function<size_t()> connections;  // the number of connections, for its status while this process drains
};

class Successor {
 public:
  static Result<std::unique_ptr<Successor>> start(EventLoop& loop, SuccessorOrder order, SuccessorEvents events);
  // Ends the new process, unless it serves.
  ~Successor();
  Successor(const Successor&) = delete;
  Successor& operator=(const Successor&) = delete;

  pid_t pid() const { return pid_; }
  bool serves() const { return step_ == Step::serving; }
  const char* step() const;
  // Gives the new process up: `failed` follows.
  void give_up(const std::string& why);

 private:
  enum class Step : uint8_t { starting, warming, letting_go, going, serving, failed };
  // Calls a member function on the loop, for one of the two descriptors.
  struct Watch final : IoHandler {
    Watch(EventLoop& loop_in, int fd_in, std::function<void()> fn_in);
    ~Watch() { detach(); }
    void detach();
    void on_io(uint32_t) override { fn(); }
    EventLoop& loop;
    int fd;
    std::function<void()> fn;
  };

  Successor(EventLoop& loop, SuccessorOrder order, SuccessorEvents events, HandOverChannel channel);
  Result<void> spawn(UniqueFd other_end);
  void on_message();
  void take(const HandOverMessage& message);
  void greet(const HandOverMessage& hello);
  void send_sockets();
  void let_go();
  void go(UniqueFd lock);
  void on_ended();
  void tell_progress();
  void drop(std::unique_ptr<Watch>& watch);

  EventLoop& loop_;
  SuccessorOrder order_;
  SuccessorEvents events_;
  HandOverChannel channel_;
  UniqueFd process_;  // pidfd
  pid_t pid_ = -1;
  Step step_ = Step::starting;
  std::string why_;       // why it failed
  bool hung_up_ = false;  // the new process closed its end
  Timer deadline_, progress_;
  std::unique_ptr<Watch> messages_, end_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace tidegate
