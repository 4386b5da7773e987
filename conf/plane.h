// SPDX-License-Identifier: Apache-2.0
// Plane: the frame of every data-plane daemon: options, signals, the follower, and the admin socket
// (<run>/<plane>.sock) with /status, /alive, /metrics, /healthz, /explain, /candidate and /upgrade. A plane sets its
// hooks and
// calls run().
#pragma once

#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "conf/follower.h"
#include "conf/model.h"
#include "conf/model/node.h"
#include "conf/query.h"
#include "conf/upgrade_hooks.h"
#include "core/event_loop.h"
#include "core/http_server.h"

namespace tidegate {

struct PlaneOptions {
  std::string config;                           // --config FILE: stand-alone
  std::string state_dir = "/var/lib/tidegate";  // --state DIR
  std::string run_dir = "/run/tidegate";        // --run DIR
  std::string node;                             // --node NAME; default: the host's name, or the document's only node
  std::string secret_file;                      // --secret FILE; without it: a random secret, which the log mentions
  std::optional<Endpoint> metrics_listen;       // --metrics ADDRESS:PORT: serves /metrics and /healthz over TCP too
  bool overlap = false;                         // --overlap: a process that ends soon still has the ports of this one
  bool verbose = false;                         // --verbose
};

// Parses the common options (CLI11), prints --help and --version, and exits with 2 on misuse. `about` is the sentence
// in --help.
PlaneOptions parse_plane_options(int argc, char** argv, const std::string& plane, const std::string& about);

struct PlaneHooks {
  // A new Snapshot, and this process's own node in it (always found). The plane is not ready anywhere before the first
  // call. An Error keeps the old Snapshot in force and is reported in /status as `refused`; an Error on new live state
  // is only logged. If nothing is in force yet and the system refuses for good (the port is taken, a privilege is
  // missing), the process ends with 1.
  std::function<Result<void>(std::shared_ptr<const Snapshot>, const Node&)> apply;
  // FollowerHooks::judge, with this process's own node. May be empty.
  std::function<std::vector<Fault>(const std::shared_ptr<const Model>&, const Node&)> judge;
  std::function<void(const Purge&)> on_purge;  // may be empty
  // FollowerHooks::prepare, with this process's own node. May be empty.
  std::function<Result<PurgePosition>(const std::shared_ptr<const Snapshot>&, const Node&)> prepare;
  // FollowerHooks::hold and release, with this process's own node. May be empty.
  std::function<Vote(const std::shared_ptr<const Snapshot>&, const Node&)> hold;
  std::function<void()> release;
  std::function<std::string()> digest;              // digest of the derived tables in force
  std::function<void(nlohmann::json&)> add_status;  // Adds the plane's own members to /status. May be empty.
  // Returns more lines for /healthz, each with its '\n': they name what does not work although the plane may serve. May
  // be empty.
  std::function<std::string()> warnings;
  bool private_keys = false;  // see FollowerHooks::private_keys
  // Returns false if the plane has a version in force but cannot serve anybody. Then /healthz is 503. May be empty.
  std::function<bool()> works;
  // Returns true if this process can never begin to serve. Then it ends with 1. May be empty.
  std::function<bool()> cannot_start;
  // GET /explain?...: the plane's own part. It must use the functions and the state that the plane works with. An Error
  // (a parameter is missing or malformed) is answered with 400.
  std::function<Result<nlohmann::json>(const HttpRequest&)> explain;
  std::vector<QueryParameter> explain_parameters;  // all parameters of /explain; others are answered with 400
  // Further admin paths. Returns false if it does not know the path. May be empty.
  std::function<bool(const HttpExchangePtr&)> admin;
  // Called when this host's control asks whether the plane is alive. The question says whether control hears the
  // leader. May be empty.
  std::function<void(bool hears_leader)> on_control;
  // SIGUSR1: a log file was renamed; go on in a new file of that name. May be empty.
  std::function<void()> reopen_logs;
  // SIGTERM or SIGINT: finish the work in progress, then call `done` on the loop's thread. Empty: stop at once.
  std::function<void(std::function<void()> done)> drain;
  UpgradeHooks upgrade;
};

// Runs until it is drained. Returns the exit status. Everything happens on the calling thread; planes have their own
// workers.
class Plane {
 public:
  Plane(std::string name, PlaneOptions options);
  ~Plane();
  EventLoop& loop();
  const PlaneOptions& options() const;
  const std::string& secret() const;  // contents of the secret file
  // The hooks may be filled at any time before this call.
  int run(PlaneHooks hooks);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tidegate
