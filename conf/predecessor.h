// SPDX-License-Identifier: Apache-2.0
// Predecessor: the previous process, which this process replaces. It is used until this process serves. The calls
// block, because there is nothing else to do meanwhile. After that, DrainingProcesses receives the progress of the
// previous process. Main thread.
#pragma once

#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "conf/upgrade_hooks.h"
#include "core/event_loop.h"
#include "core/hand_over.h"
#include "core/result.h"

namespace tidegate {

class Predecessor {
 public:
  // The process that started this one for an upgrade, by $TIDEGATE_HAND_OVER. Null if there is none. Removes the
  // variable from the environment. Errors: the variable is malformed, or names a format that this program does not
  // speak.
  static Result<std::unique_ptr<Predecessor>> from_environment();
  explicit Predecessor(HandOverChannel channel) : channel_(std::move(channel)) {}

  // Tells the previous process the daemon and the formats of this one, and takes the sockets.
  Result<std::vector<std::pair<HandOverItem, UniqueFd>>> take_sockets(const std::string& plane,
                                                                      const std::string& data_format);
  uint64_t generation() const { return generation_; }  // of the old process; after take_sockets()
  // Says that this process could serve, and waits until the old one has released what only one process can have.
  // Returns the lock, if there is one.
  Result<UniqueFd> warm(const std::string& what);
  // Gives up the upgrade: the old process continues.
  void refuse(const std::string& why);
  // Says that this process serves: the old one stops accepting. The channel stays open.
  Result<UniqueFd> serving();

 private:
  HandOverChannel channel_;
  uint64_t generation_ = 0;
};

// The earlier processes that still finish their connections. Each speaks on its own channel until it ends.
class DrainingProcesses {
 public:
  explicit DrainingProcesses(EventLoop& loop);
  ~DrainingProcesses();
  // `on_first_word` is called when that process sends its first message, or ends. May be empty.
  void add(UniqueFd channel, std::function<void()> on_first_word = {});
  size_t size() const;
  uint64_t connections() const;
  nlohmann::json status() const;
  // The channels for the next process, which then receives the progress.
  std::vector<LentSocket> lend() const;
  void forget_all();

 private:
  class Process;
  EventLoop& loop_;
  std::vector<std::unique_ptr<Process>> processes_;
};

}  // namespace tidegate
