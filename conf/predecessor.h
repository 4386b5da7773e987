// SPDX-License-Identifier: Apache-2.0
// Predecessor: the process that this one follows, as this one sees it until it serves. It waits, because there is
// nothing else to do meanwhile. Afterwards DrainingProcesses hears how far the old one has come. Main thread.
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
  // Of the process that started this one, as $TIDEGATE_HAND_OVER says; null: nobody did. Takes the variable out of the
  // environment. Errors: the variable is malformed, or names a format that this program does not speak.
  static Result<std::unique_ptr<Predecessor>> from_environment();
  explicit Predecessor(HandOverChannel channel) : channel_(std::move(channel)) {}

  // Says what this process is, and takes the sockets.
  Result<std::vector<std::pair<HandOverItem, UniqueFd>>> take_sockets(const std::string& plane,
                                                                      const std::string& data_format);
  uint64_t generation() const { return generation_; }  // of the old process; after take_sockets()
  // Says that this process could serve, and waits until the old one has let go. Returns the lock, if there is one.
  Result<UniqueFd> warm(const std::string& what);
  // The old process goes on.
  void refuse(const std::string& why);
  // The old process stops accepting. The channel's end stays open.
  Result<UniqueFd> serving();

 private:
  HandOverChannel channel_;
  uint64_t generation_ = 0;
};

// The processes before this one that still finish their connections. Each speaks on its own channel until it ends.
class DrainingProcesses {
 public:
  explicit DrainingProcesses(EventLoop& loop);
  ~DrainingProcesses();
  // `on_first_word` is called when it says something, or ends. May be empty.
  void add(UniqueFd channel, std::function<void()> on_first_word = {});
  size_t size() const;
  uint64_t connections() const;
  nlohmann::json status() const;
  // For the next process, which hears them from then on.
  std::vector<LentSocket> lend() const;
  void forget_all();

 private:
  class Process;
  EventLoop& loop_;
  std::vector<std::unique_ptr<Process>> processes_;
};

}  // namespace tidegate
