// SPDX-License-Identifier: Apache-2.0
// UDP: one thread and one socket for each worker and address, all sockets of an address in one SO_REUSEPORT group. The
// thread blocks in recvmmsg, answers up to 16 queries, and sends them with one sendmmsg: two system calls a batch.
#pragma once

#include <atomic>
#include <memory>
#include <thread>

#include "core/fd.h"
#include "core/ip.h"
#include "core/result.h"
#include "core/shared_port.h"
#include "dns/query/publish.h"
#include "dns/query/query.h"

namespace tidegate::dns {

// Datagrams that were not handled by answer(). Only the thread writes it.
struct UdpTally {
  Tally::Count oversized{0};     // longer than any query: dropped
  Tally::Count unanswerable{0};  // from port 0: dropped
  Tally::Count send_failed{0};   // the kernel did not take the answer
};

class UdpServer {
 public:
  // Binds at once (port 0 lets the kernel choose); serves from start() on.
  static Result<std::unique_ptr<UdpServer>> bind(const Endpoint& endpoint, TablesSlot& slot, Worker& worker,
                                                 HeldPorts& held);
  ~UdpServer();  // stops
  UdpServer(const UdpServer&) = delete;
  UdpServer& operator=(const UdpServer&) = delete;

  void start();
  void stop();  // returns when the thread has ended; queries already received are answered
  // Like stop(), but another process continues to receive on the same socket.
  void leave();
  int fd() const { return socket_.get(); }
  const Endpoint& endpoint() const { return endpoint_; }
  const UdpTally& tally() const { return tally_; }

 private:
  struct Batch;
  UdpServer(const Endpoint& endpoint, TablesSlot& slot, Worker& worker);
  void run();
  void receive_until_stopped();
  int receive(Batch& batch, int flags);  // also answers; returns the result of recvmmsg
  void serve_batch(Batch& batch, unsigned received);
  void send_batch(Batch& batch, unsigned answers);

  Endpoint endpoint_;
  TablesSlot& slot_;
  Worker& worker_;
  UniqueFd socket_;
  bool wildcard_ = false;  // bound to every address: answers are sent from the address that was asked
  UdpTally tally_;
  std::atomic<bool> stop_{false};
  std::atomic<bool> ended_{false};  // the thread does not receive any more
  std::thread thread_;
};

}  // namespace tidegate::dns
