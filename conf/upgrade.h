// SPDX-License-Identifier: Apache-2.0
// Upgrade: a plane's part in the change to another process. It has POST /upgrade on the admin socket, the members of
// /status and /metrics, and the earlier processes that still drain. Main thread.
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
  // Call it early. A package that is installed later replaces the file that this process was started from, and the new
  // file must be started by that name.
  Upgrade(EventLoop& loop, ServiceManager& manager, std::string plane);

  const UpgradeHooks* hooks = nullptr;                    // must be set before the first request
  std::function<std::vector<LentSocket>()> more_sockets;  // sockets in addition to those of the hooks
  std::function<void()> on_served;                        // the new process serves: accept nothing more
  std::function<bool()> may_start;                        // false: this process is starting or ending

  // POST starts a new process, and answers with a stream of JSON lines: one for each step, then one with `outcome`.
  // Parameters: program (an absolute path; otherwise the file that this process was started from) and within (seconds).
  // Only root and this process's own user may do so. GET returns the state of the upgrade.
  void answer(const HttpExchangePtr& exchange);
  void add_status(nlohmann::json& status) const;
  std::string metrics_text(const std::string& prefix) const;
  // True if another process serves in this one's place.
  bool followed() const { return successor_ && successor_->serves(); }
  // Called when this process ends. A new process that does not serve yet ends too.
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
  // a supervisor of an earlier release, which would take the end of this process for a crash; empty: none
  std::string supervisor_;
  std::unique_ptr<Successor> successor_;
  HttpExchangePtr asker_;
  uint64_t failures_ = 0;
  std::string last_failure_;
};

}  // namespace tidegate
