// SPDX-License-Identifier: Apache-2.0
// BackendSocket: a connection to a backend beneath its protocol: TCP, then TLS where the pool has it, from connect() to
// close(). It tells its owner, which speaks the protocol, when something may have changed.
//
// Threads: the worker's.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "conf/model.h"
#include "core/event_loop.h"
#include "core/ip.h"
#include "l7/backend/acceptance.h"
#include "l7/backend/address.h"
#include "l7/exchange/failure.h"
#include "l7/wire/buffer.h"
#include "l7/wire/transport.h"

namespace tidegate::l7 {

// Whom a connection is made to, and whom it believes. Borrowed for a call.
struct BackendPeer {
  const BackendAddress& address;
  const std::shared_ptr<TlsContext>& tls;  // null: plain
  const std::string& server_name;          // to ask for and to check; empty: the address is checked
  uint64_t idle_timeout_ms = 0;            // how long it may keep its window shut
  BackendProtocol protocol = BackendProtocol::h1;
  std::string_view preface = {};  // a PROXY header, sent before everything else; empty: none
  // HTTP/1.1 alone is offered by TLS, although `tls` has HTTP/2 too.
  bool http1_alone = false;
  std::span<const IpAddress> local = {};  // from which it is made, by family; none of the family: the kernel chooses

  std::optional<IpAddress> local_address() const;
};

class BackendSocket final : public IoHandler {
 public:
  class Owner {
   public:
    // It is open now, or has failed, or something may be read or written. May close the socket, but not destroy it.
    virtual void on_socket() = 0;
    // acceptance() is known, again and again until it is `acknowledged`. May close the socket, but not destroy
    // it.
    virtual void on_acceptance() = 0;

   protected:
    ~Owner() = default;
  };

  BackendSocket(EventLoop& loop, BlockPool& blocks, const BackendPeer& peer);

  // Starts connecting `fd`, a socket that is not connected yet. is_open() or failure() will tell.
  void connect(UniqueFd fd, uint64_t idle_timeout_ms);
  void set_owner(Owner& owner) { owner_ = &owner; }
  void close();

  // Connected, and the TLS handshake is done.
  bool is_open() const { return stage_ == Stage::open; }
  // When TCP was connected; 0: it is not.
  uint64_t tcp_connected_ns() const { return tcp_connected_ns_; }
  Acceptance acceptance() const { return transport_.bytes_read() > 0 ? Acceptance::acknowledged : acceptance_; }
  // The owner was told that it is acknowledged.
  bool seen_acknowledged() const { return acceptance_ == Acceptance::acknowledged; }
  // Why it could not be made. What happens to an open connection is its protocol's to judge.
  Failure failure() const { return failure_; }
  const std::string& failure_detail() const { return failure_detail_; }

  Transport& transport() { return transport_; }
  const Transport& transport() const { return transport_; }
  InBuffer& in() { return in_; }
  const InBuffer& in() const { return in_; }
  EventLoop& loop() { return loop_; }

  // Whether the kernel still believes in an idle connection: a last look before a request that cannot be repeated.
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
  Transport transport_;
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
