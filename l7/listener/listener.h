// SPDX-License-Identifier: Apache-2.0
// Listeners: sockets that accept. Every worker has its own socket on each endpoint (SO_REUSEPORT). The main thread
// makes them, so that a failed bind refuses the whole configuration.
#pragma once

#include <string>

#include "conf/model/listener.h"
#include "core/event_loop.h"
#include "core/fd.h"
#include "core/ip.h"
#include "core/result.h"
#include "core/shared_port.h"

namespace tidegate::l7 {

class Worker;

struct ListenSocket {
  UniqueFd fd;
  Endpoint bind;   // as in the configuration; it identifies the listener, whatever its name is
  Endpoint bound;  // the same, with the port that the kernel chose if it was 0
};

// Addresses that this host does not have yet are allowed, because a VIP may arrive later.
constexpr PortOptions kListenPort{.free_bind = true};

// Returns a socket that is bound to `wanted` and listens: a held socket, or else a new one.
Result<ListenSocket> open_listen_socket(const Endpoint& bind, const Endpoint& wanted, HeldPorts& held);

// The listener of `plan` that has this bind, or kNone.
struct Plan;
uint32_t find_listener(const Plan& plan, const Endpoint& bind);

// Whether this address belongs to one of the listener's trusted proxies.
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
  // Accepts all connections that the kernel has completed. Call it before closing, because the kernel would reset them.
  void accept_all();

 private:
  bool accept_one();
  Worker& worker_;
  ListenSocket socket_;
  Timer pause_;  // after accept(2) failed because of missing descriptors or memory
  bool paused_ = false;
};

}  // namespace tidegate::l7
