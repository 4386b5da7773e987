// SPDX-License-Identifier: Apache-2.0
// Plane: the frame that every data-plane daemon shares: options, signals, the follower, and the admin socket
// (<run>/<plane>.sock) with /status, /metrics, /healthz, /explain. A plane gives its hooks and calls run().
#pragma once

#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "conf/follower.h"
#include "conf/query.h"
#include "core/event_loop.h"
#include "core/http_server.h"

namespace tidegate {

struct PlaneOptions {
  std::string config;                           // --config FILE: stand-alone
  std::string state_dir = "/var/lib/tidegate";  // --state DIR
  std::string run_dir = "/run/tidegate";        // --run DIR
  std::string node;                             // --node NAME; default: the host's name, or the document's only node
  std::string secret_file;                      // --secret FILE; without: a random secret, said in the log
  std::optional<Endpoint> metrics_listen;       // --metrics ADDRESS:PORT: /metrics and /healthz over TCP too
  bool verbose = false;                         // --verbose
};

// Parses the common options (CLI11), prints --help and --version, exits 2 on misuse. `about` is the sentence in --help.
PlaneOptions parse_plane_options(int argc, char** argv, const std::string& plane, const std::string& about);

struct PlaneHooks {
  // A new Snapshot and this process's own node in it (always found). Called first before `ready` is said anywhere.
  // An Error keeps the old one in force and is reported in /status as `refused`.
  std::function<Result<void>(std::shared_ptr<const Snapshot>, const Node&)> apply;
  std::function<void(const Purge&)> on_purge;  // may be empty
  // FollowerHooks::prepare, with this process's own node. May be empty.
  std::function<Result<PurgePosition>(const std::shared_ptr<const Snapshot>&, const Node&)> prepare;
  std::function<std::string()> digest;              // of the derived tables in force
  std::function<void(nlohmann::json&)> add_status;  // may be empty: plane's own members of /status
  // What does not work, though the plane may serve: further lines of /healthz, each with its '\n'. May be empty.
  std::function<std::string()> warnings;
  // False: the plane has a version in force and yet cannot serve anybody; /healthz is 503 then. May be empty.
  std::function<bool()> works;
  // GET /explain?...: the plane's own part, decided by the functions and state it runs on. An Error (a parameter that
  // is missing or malformed) is answered with 400.
  std::function<Result<nlohmann::json>(const HttpRequest&)> explain;
  std::vector<QueryParameter> explain_parameters;  // all that /explain takes; others are answered with 400
  // Further admin paths; returns false when it does not know the path. May be empty.
  std::function<bool(const HttpExchangePtr&)> admin;
  // SIGTERM or SIGINT: finish work under way, then call `done` (from the loop's thread). Empty: stop at once.
  std::function<void(std::function<void()> done)> drain;
};

// Runs until drained. Returns the exit status. Everything happens on the calling thread; planes have workers of their
// own.
class Plane {
 public:
  Plane(std::string name, PlaneOptions options);
  ~Plane();
  EventLoop& loop();
  const PlaneOptions& options() const;
  const std::string& secret() const;  // contents of the secret file
  // Hooks may be set at any time before run().
  int run(PlaneHooks hooks);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tidegate
