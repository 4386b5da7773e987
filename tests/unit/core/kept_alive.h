// SPDX-License-Identifier: Apache-2.0
// The keepalive timers of TCP sockets, as /proc/net/tcp shows them.
#pragma once

#include <cstdint>
#include <fstream>
#include <sstream>
#include <string>

namespace tidegate {

// How many established IPv4 connections with that port, at its local or at its remote end, have a running keepalive
// timer.
inline size_t kept_alive(uint16_t port, bool port_is_local) {
  std::ifstream file("/proc/net/tcp");
  size_t count = 0;
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string number, local, remote, state, queues, timer;
    words >> number >> local >> remote >> state >> queues >> timer;
    const std::string& end = port_is_local ? local : remote;
    const size_t colon = end.find(':');
    if (state != "01" || colon == std::string::npos || !timer.starts_with("02")) continue;
    count += std::stoul(end.substr(colon + 1), nullptr, 16) == port ? 1 : 0;
  }
  return count;
}

}  // namespace tidegate
