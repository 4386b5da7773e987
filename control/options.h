// SPDX-License-Identifier: Apache-2.0
// The options of tidegate-control.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "conf/state_store.h"
#include "core/ip.h"

namespace tidegate {

struct ControlOptions {
  std::string state_dir = "/var/lib/tidegate";
  std::string run_dir = "/run/tidegate";
  std::string node;                // default: the host's name
  bool node_told = false;          // --node was given
  std::optional<Endpoint> listen;  // needs tokens_file
  std::string tokens_file;
  std::string tls_certificate_file, tls_key_file;  // for `listen`; both or none
  bool insecure = false;  // allows plain TCP beyond this host, for `listen` and to other controls
  // connections to other controls use TLS; these roots must have signed their certificates
  std::string peer_ca_file;
  std::optional<Endpoint> follow;  // replicates that control's stream and refuses writes
  std::string peer_token_file;     // presented to other controls; default: the first `replica` token of tokens_file
  std::string config;              // committed as the first version if the state is empty
  uint64_t prepare_timeout_ms = 5'000;  // how long a plane may take to prepare a candidate
  size_t versions_kept = StateStore::kVersionsKept;
  std::string secrets_group;  // the group that may read the private keys in the state; see StateStore::open
  // The state of several hosts in etcd. Without endpoints, the state is this host's own, or a copy of another control's
  // (`follow`).
  std::vector<std::string> etcd_endpoints;
  std::string etcd_prefix = "/tidegate/";
  std::string etcd_ca_file, etcd_certificate_file, etcd_key_file;
  std::string etcd_user, etcd_password_file;
  uint64_t etcd_lease_s = 2;
  uint64_t etcd_checkpoint_writes = 2'000;
  bool etcd_begin = false;  // an etcd that lost its content gets this host's state
  // the directory of programs that probes may run; empty: probes may run none
  std::string probe_commands;
  std::string probe_commands_user = "nobody";  // the user who runs them if this process is root
  bool announce = false;                       // BIRD on this host announces the VIPs of its forwarder
  std::string bird_socket = "/run/bird/bird.ctl";
  std::string announce_file = "/run/tidegate-bird/vips.conf";
  std::string secret_file;  // its content decides how probes are spread; without it, the node's name decides
  bool verbose = false;
};

// Prints --help and --version itself. Exits with 2 on misuse.
ControlOptions parse_control_options(int argc, char** argv);

}  // namespace tidegate
