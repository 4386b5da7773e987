// SPDX-License-Identifier: Apache-2.0
// Listeners: sockets that accept. Every worker has one of its own on each endpoint (SO_REUSEPORT), made on the main
// thread so that a bind that fails refuses the configuration as a whole.
#pragma once

#include <string>

#include "conf/model.h"
#include "core/event_loop.h"
#include "core/fd.h"
#include "core/ip.h"
#include "core/result.h"
#include "core/shared_port.h"

namespace tidegate::l7 {

class Worker;

struct ListenSocket {
  UniqueFd fd;
  Endpoint bind;   // as the configuration says it: which listener this is, whatever its name
  Endpoint bound;  // what became of it: the same, but that the kernel chose where the port was 0
};

// Addresses that this host does not have yet are taken all the same: a VIP may arrive later.
constexpr PortOptions kListenPort{.free_bind = true};

// Bound to `wanted` and listening: a socket that is held, or else a new one.
Result<ListenSocket> open_listen_socket(const Endpoint& bind, const Endpoint& wanted, HeldPorts& held);

// The listener of `plan` that has this bind, or kNone.
struct Plan;
uint32_t find_listener(const Plan& plan, const Endpoint& bind);

// Whether a peer at this address is one of the listener's trusted proxies.
bool trusts(const Listener& listener, const IpAddress& peer);
// Whether that peer's connections begin with a PROXY header.
bool sends_proxy_header(const Listener& listener, const IpAddress& peer);

// One worker's listening socket in its loop.
class ListenerSocket final : public IoHandler {
 public:
  ListenerSocket(Worker& worker, ListenSocket socket);
  ~ListenerSocket();
  const Endpoint& bind() const { return socket_.bind; }
  void on_io(uint32_t events) override;
  // Accepts all connections that the kernel has completed. Before closing: the kernel would reset them.
  void accept_all();

 private:
  bool accept_one();
  Worker& worker_;
  ListenSocket socket_;
  Timer pause_;  // after accept(2) failed for want of descriptors or memory
  bool paused_ = false;
};

}  // namespace tidegate::l7
