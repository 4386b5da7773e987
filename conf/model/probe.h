// SPDX-License-Identifier: Apache-2.0
// Probes: the checks by which control finds out whether a backend is healthy.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "conf/model/common.h"

namespace tidegate {

enum class ProbeType : uint8_t { tcp, http, https, grpc, udp, dns, tls, command };

struct Probe {
  std::string name;
  ProbeType type = ProbeType::tcp;
  uint16_t port = 0;  // 0: the backend's port; with via_vip the port of each service
  // the site's forwarder sends the probe to the VIP of each service, with the backend's MAC address
  bool via_vip = false;
  std::string path = "/";
  std::string host;          // Host field and server name; empty: the backend's address
  bool tls_verify = true;    // https; grpc with tls
  Blob tls_ca;               // PEM; none: the system's authorities
  bool tls = false;          // grpc
  std::string grpc_service;  // grpc: the service to ask for; empty: the server as a whole
  uint16_t expect_status = 200;
  std::string send;                   // tcp and udp: sent when the connection is open
  std::string expect;                 // tcp and udp: text that the answer must contain
  std::string dns_name = ".";         // dns: the name to ask for
  std::string dns_type = "SOA";       // dns
  std::string dns_rcode = "NOERROR";  // dns: the code that the answer must have
  uint32_t tls_days = 14;             // tls: how many days the certificate must still be valid
  std::vector<std::string> command;   // command: a program by its path, and its arguments
  uint64_t hold_ms = 0;               // how long a verdict stays at least; 0: rise and fall alone decide
  uint64_t interval_ms = 1'000;
  uint64_t timeout_ms = 1'000;
  uint32_t rise = 2;  // consecutive successes until it is up
  uint32_t fall = 2;  // consecutive failures until it is down
};

}  // namespace tidegate
