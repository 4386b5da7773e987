// SPDX-License-Identifier: Apache-2.0
// TCP (RFC 1035 §4.2.2, RFC 7766): pipelined queries on kept connections, answered in the order in which they came.
//
// Bounds: connections per worker; among these, connections of one client address; bytes of a query; bytes of answers
// that a client does not read (its next queries wait until it does); time without progress. If a worker or a client
// address has too many connections, the connection without progress for the longest time is closed. The last
// descriptors are left for others (core/open_files.h).
//
// Threads: everything on the loop's thread.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <vector>

#include "conf/model/listener.h"
#include "core/address_table.h"
#include "core/event_loop.h"
#include "core/fd.h"
#include "core/ip.h"
#include "core/result.h"
#include "core/shared_port.h"
#include "dns/limits.h"
#include "dns/query/publish.h"
#include "dns/query/query.h"

namespace tidegate::dns {

struct TcpLimits {
  size_t connections = kTcpConnections;
  uint32_t connections_per_address = kTcpConnectionsPerAddress;
  uint64_t idle_ms = 10'000;         // time without a byte in either direction (RFC 7766 §6.2.3 asks for seconds)
  size_t query_bytes = 4'096;        // a longer query closes the connection
  size_t backlog_bytes = 128 << 10;  // bytes of answers that were not taken yet; at least one largest answer
};

struct TcpTally {
  Tally::Count accepted{0};
  Tally::Count evicted{0};             // closed to make room for another
  Tally::Count evicted_by_address{0};  // closed to make room for a connection of the same address, which has its share
  Tally::Count refused{0};             // new connections that were refused because no descriptor was left
  Tally::Count timed_out{0};
  Tally::Count oversized_query{0};  // connections closed because of a query that was too long
  Tally::Count unanswerable{0};     // connections closed because of a message that would get no answer over UDP either
};

class TcpServer {
 public:
  TcpServer(EventLoop& loop, TablesSlot& slot, Worker& worker, TcpLimits limits = {});
  ~TcpServer();
  TcpServer(const TcpServer&) = delete;
  TcpServer& operator=(const TcpServer&) = delete;

  // Returns the bound endpoint.
  Result<Endpoint> listen(const Endpoint& endpoint, HeldPorts& held);
  // Existing connections are still served.
  void stop_listening();
  std::vector<std::pair<Endpoint, int>> sockets() const;  // sockets that listen; borrowed
  size_t connections() const { return connections_.size(); }
  const TcpTally& tally() const { return tally_; }

 private:
  class Listener;
  class Connection;
  friend class Listener;
  friend class Connection;
  using Connections = std::list<std::unique_ptr<Connection>>;  // the one idle longest first

  enum class Accepted : uint8_t { all, more, no_descriptors };
  Accepted accept_some(int listener);
  void admit(UniqueFd fd, const IpAddress& address);
  bool evict_oldest();
  bool evict_oldest_of(const IpAddress& address);
  void touch(Connection& connection);  // the connection made progress
  void close(Connection& connection);  // its memory is freed at the end of the loop's turn

  EventLoop& loop_;
  TablesSlot& slot_;
  Worker& worker_;
  TcpLimits limits_;
  TcpTally tally_;
  std::vector<std::unique_ptr<Listener>> listeners_;
  AddressTable addresses_;  // outlives connections_, which hold places in it
  Connections connections_;
  std::vector<uint8_t> scratch_;  // one answer with its length; shared by all connections
  Timer sweep_;                   // closes idle connections
};

}  // namespace tidegate::dns
