// SPDX-License-Identifier: Apache-2.0
// BackendSocket: a connection to a backend below its protocol, from connect() to close(). It is TCP, and TLS over it if
// the pool has TLS. The owner speaks the protocol. The socket tells the owner when something may have changed.
//
// Threads: the worker's.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "conf/model/pool.h"
#include "core/event_loop.h"
#include "core/ip.h"
#include "l7/backend/acceptance.h"
#include "l7/exchange/failure.h"
#include "l7/plan/backend_address.h"
#include "l7/wire/buffer.h"
#include "l7/wire/transport.h"

namespace tidegate::l7 {

// The peer of a connection, and how it must prove its identity. Borrowed for a call.
struct BackendPeer {
  const BackendAddress& address;
  const std::shared_ptr<TlsContext>& tls;  // null: plain text
  const std::string& server_name;          // the name for SNI that is also checked; empty: the address is checked
  uint64_t idle_timeout_ms = 0;            // how long the peer may keep its window shut
  BackendProtocol protocol = BackendProtocol::h1;
  std::string_view preface = {};  // a PROXY header that is sent before everything else; empty: none
  // TLS offers only HTTP/1.1, although `tls` also has HTTP/2.
  bool http1_alone = false;
  std::span<const IpAddress> local = {};  // source addresses, by family; none of the family: the kernel chooses

  std::optional<IpAddress> local_address() const;
};

class BackendSocket final : public IoHandler {
 public:
  class Owner {
   public:
    // Called when the socket is open, has failed, or can be read or written. The owner may close the socket, but not
    // destroy it.
    virtual void on_socket() = 0;
    // Called when acceptance() is known, and again until it is `acknowledged`. The owner may close the socket, but not
    // destroy it.
    virtual void on_acceptance() = 0;

   protected:
    ~Owner() = default;
  };

  BackendSocket(EventLoop& loop, BlockPool& blocks, const BackendPeer& peer);

  // Starts connecting `fd`, which is not connected yet. Ask is_open() or failure() for the result.
  void connect(UniqueFd fd, uint64_t idle_timeout_ms);
  void set_owner(Owner& owner) { owner_ = &owner; }
  void close();

  // Connected, and the TLS handshake is done.
  bool is_open() const { return stage_ == Stage::open; }
  // When TCP was connected; 0: it is not.
  uint64_t tcp_connected_ns() const { return tcp_connected_ns_; }
  Acceptance acceptance() const { return transport_.bytes_read() > 0 ? Acceptance::acknowledged : acceptance_; }
  // Whether the owner was told that the connection is acknowledged.
  bool seen_acknowledged() const { return acceptance_ == Acceptance::acknowledged; }
  // Why the connection could not be made. The protocol decides about failures of an open connection.
  Failure failure() const { return failure_; }
  const std::string& failure_detail() const { return failure_detail_; }

  ProxyTransport& transport() { return transport_; }
  const ProxyTransport& transport() const { return transport_; }
  InBuffer& in() { return in_; }
  const InBuffer& in() const { return in_; }
  EventLoop& loop() { return loop_; }

  // Whether the kernel still considers an idle connection open. It is a last check before a request that cannot be
  // repeated.
  bool looks_alive() const;
  bool leads_to(const BackendPeer& peer) const {
    return address_ == peer.address && tls_ == peer.tls && server_name_ == peer.server_name &&
           preface_ == peer.preface && local_ == peer.local_address();
  }

  void on_io(uint32_t events) override;

 private:
  enum class Stage : uint8_t { connecting, handshaking, open, closed };
  void on_connecting();
  void on_handshaking();
  bool bind_local(int fd);
  void check_acceptance();
  void fail_with(Failure failure, std::string_view detail = {});

  EventLoop& loop_;
  const BackendAddress address_;
  const std::shared_ptr<TlsContext> tls_;
  const std::string server_name_;
  const std::string preface_;
  const std::optional<IpAddress> local_;
  const bool http1_alone_;
  ProxyTransport transport_;
  InBuffer in_;
  Owner* owner_ = nullptr;
  Stage stage_ = Stage::connecting;
  uint64_t tcp_connected_ns_ = 0;
  Acceptance acceptance_ = Acceptance::unknown;
  Timer acceptance_check_;
  Failure failure_ = Failure::none;
  std::string failure_detail_;
};

}  // namespace tidegate::l7
