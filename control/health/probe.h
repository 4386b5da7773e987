// SPDX-License-Identifier: Apache-2.0
// Probe: one check of one backend. It connects, or sends a request. After a failure it gives the reason as a sentence.
//
// Threads: the loop's. Nothing blocks. `done` is called once, within the probe's timeout. The destructor cancels the
// attempt. An attempt may not be destroyed inside its own `done`.
#pragma once

#include <array>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "conf/model.h"
#include "conf/model/pool.h"
#include "conf/model/probe.h"
#include "core/event_loop.h"
#include "core/http_server.h"
#include "core/ip.h"
#include "core/result.h"

namespace tidegate {

class ProbeCommands;

// Makes a forwarder send a probe (forwarder_door.h).
struct ForwarderDoor {
  using Answer = std::function<void(Result<HttpResponse>)>;
  std::function<void(const std::string& node, std::string order, uint64_t timeout_ms, Answer answer)> order;
};

// The address to check, and the kind of check. Two equal targets are the same probe.
struct ProbeTarget {
  ProbeType type = ProbeType::tcp;
  Endpoint endpoint;
  std::string host;  // for the Host field and SNI
  std::string path;
  bool tls_verify = true;
  std::string tls_ca_pem;  // empty: the system's authorities
  uint16_t expect_status = 200;
  std::string send, expect;  // tcp, udp: bytes
  std::string dns_name, dns_type, dns_rcode;
  uint32_t tls_days = 0;
  bool echo = false;                        // ICMP echo to the endpoint's address, whatever the type is
  bool tls = false;                         // for grpc
  std::string grpc_service;                 // empty: the server as a whole
  std::vector<std::string> command;         // a program's name, and its arguments
  std::string backend;                      // for command and via_vip: the backend's name
  std::shared_ptr<ProbeCommands> commands;  // runs the programs; null: this control runs no commands
  // For a probe via the VIP: the targets that the forwarder probes at the backend, and the nodes whose forwarders can
  // do it. The first one that answers counts.
  bool via_vip = false;
  std::vector<Endpoint> vips;
  std::vector<std::string> forwarders;
  std::string pool;
  std::shared_ptr<const ForwarderDoor> door;  // null: this control can reach no forwarder
  uint64_t hold_ms = 0;
  uint64_t interval_ms = 1'000, timeout_ms = 1'000;
  uint32_t rise = 2, fall = 2;
  bool operator==(const ProbeTarget&) const = default;
};
// The backend's first address is probed. `commands`: runs the programs of probes of type command.
ProbeTarget probe_target(const Probe& probe, const Backend& backend, std::shared_ptr<ProbeCommands> commands = {});

// Turns the target into a probe via the VIPs of the services that use the pool. `backend` must be in the pool.
void ask_for_vips(ProbeTarget& target, const Model& model, uint32_t pool, const Backend& backend,
                  std::shared_ptr<const ForwarderDoor> door);

// The kind of failure, for the metrics.
enum class ProbeCause : uint8_t {
  refused,      // nothing listens there
  timeout,      // nothing came in time
  connection,   // the connection broke, or there is no route
  answer,       // not the expected answer
  certificate,  // TLS certificate or handshake
};
constexpr std::array<const char*, 5> kProbeCauses = {"refused", "timeout", "connection", "answer", "certificate"};

struct ProbeResult {
  bool success = false;
  std::string reason;  // "connect refused", "status 503, expected 200", "nothing for 500 ms"; empty after a success
  // False if a limit of this host (core/open_files.h) or a missing permission prevented the check. Then the result says
  // nothing about the backend.
  bool looked = true;
  ProbeCause cause = ProbeCause::connection;  // of a failure
};

class ProbeAttempt {
 public:
  virtual ~ProbeAttempt() = default;
};
using ProbeDone = std::function<void(ProbeResult)>;
std::unique_ptr<ProbeAttempt> start_probe(EventLoop& loop, const ProbeTarget& target, ProbeDone done);

}  // namespace tidegate
