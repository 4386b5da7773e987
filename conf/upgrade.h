// SPDX-License-Identifier: Apache-2.0
// Upgrade: a plane's part in being followed by another process: POST /upgrade on the admin socket, what /status and
// /metrics tell of it, and the processes before this one that still drain. Main thread.
#pragma once

#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "conf/predecessor.h"
#include "conf/successor.h"
#include "conf/upgrade_hooks.h"
#include "core/http_server.h"
#include "core/service_manager.h"

namespace tidegate {

class Upgrade {
 public:
  // Call it early: a package that is installed later replaces the file that this process was started from, and the new
  // one is to be started by that name.
  Upgrade(EventLoop& loop, ServiceManager& manager, std::string plane);

  const UpgradeHooks* hooks = nullptr;                    // set before the first request
  std::function<std::vector<LentSocket>()> more_sockets;  // beside those of the hooks
  std::function<void()> on_served;                        // the new process serves: accept nothing more
  std::function<bool()> may_start;                        // false: this process starts or ends

  // POST starts a new process, and answers with a stream of JSON lines: one for each step, then one with `outcome`.
  // Parameters: program (an absolute path; otherwise the file that this process was started from) and within (seconds).
  // Only root and this process's own user may. GET says what goes on.
  void answer(const HttpExchangePtr& exchange);
  void add_status(nlohmann::json& status) const;
  std::string metrics_text(const std::string& prefix) const;
  // Another process serves in this one's place.
  bool followed() const { return successor_ && successor_->serves(); }
  // This process ends: a new one that does not serve yet ends too.
  void stop();

  uint64_t generation = 1;  // how many processes have served, one after the other, with these sockets
  DrainingProcesses draining;

 private:
  void begin(const HttpExchangePtr& exchange, const std::string& program, uint64_t within_s);
  std::string reason_not_to(const HttpRequest& request) const;
  void tell(const nlohmann::json& line) const;
  void served();
  void failed(const std::string& why);

  EventLoop& loop_;
  ServiceManager& manager_;
  const std::string plane_;
  std::string program_;
  std::vector<std::string> arguments_;
  std::string supervisor_;  // of an earlier release, that would take the end of this process for a crash; empty: none
  std::unique_ptr<Successor> successor_;
  HttpExchangePtr asker_;
  uint64_t failures_ = 0;
  std::string last_failure_;
};

}  // namespace tidegate
