// SPDX-License-Identifier: Apache-2.0
// ClientConnection: a client's socket from accept to close. It reads the PROXY header (if the peer sends one), does the
// TLS handshake and detects the protocol: by ALPN, or in plain text by the HTTP/2 preface (RFC 9113 §3.3). Then the
// ClientProtocol takes over.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "core/address_table.h"
#include "core/event_loop.h"
#include "core/idle_list.h"
#include "l7/exchange/client_stream.h"
#include "l7/plan.h"
#include "l7/wire/buffer.h"
#include "l7/wire/proxy_protocol.h"
#include "l7/wire/transport.h"

namespace tidegate::l7 {

class Worker;
class ClientConnection;

// Speaks one protocol on a connection.
class ClientProtocol {
 public:
  virtual ~ClientProtocol() = default;
  virtual void on_ready() = 0;    // the socket may be readable or writable
  virtual void on_timer() = 0;    // the connection's timer, which the protocol has armed, fires
  virtual void on_round_end() {}  // called if Worker::call_at_round_end was called
  virtual void drain() = 0;       // finish the work in progress, and accept nothing new
  // Another process accepts from now on. Like drain(), but a request that the client may be sending now is still
  // answered.
  virtual void leave() { drain(); }
  virtual void recycle() = 0;  // nothing is in progress: close at once, and in the protocol's way if possible
  // The socket is about to be closed: end the transactions.
  virtual void on_closing() = 0;
};
std::unique_ptr<ClientProtocol> make_http1(ClientConnection& connection);
std::unique_ptr<ClientProtocol> make_http2(ClientConnection& connection);

class ClientConnection final : public IoHandler, public IdleLink {
 public:
  ClientConnection(Worker& worker, const Endpoint& peer, const Endpoint& bind, AddressTable::Hold hold, size_t index);
  ~ClientConnection();

  void open(UniqueFd fd);
  void on_io(uint32_t events) override;
  void on_round_end() { protocol_->on_round_end(); }
  void drain();
  void leave();
  // Ends it now, even with work in progress.
  void abort() { close(); }
  // Ends this idle connection to make room for another.
  void recycle();

  // --- for the protocol
  Worker& worker() { return worker_; }
  ProxyTransport& transport() { return transport_; }
  InBuffer& in() { return in_; }
  Timer& timer() { return timer_; }
  const ClientFacts& facts() const { return facts_; }
  // The plan in force, for a request that begins now. Updates the facts, because the listener may have changed or gone.
  PlanPin pin_plan();
  struct Limits {
    uint64_t header_timeout_ms = 10'000, idle_timeout_ms = 60'000;
    size_t head_bytes = 32 * 1024;
    size_t fields = 200;
    bool http2 = true;
    bool answer_half_closed = false;
  };
  const Limits& limits() const { return limits_; }
  // How long to wait for a request, or for the rest of its head. It is `usual_ms`, or shorter in a drain.
  uint64_t patience_for_head_ms(uint64_t usual_ms) const;
  // The listener uses TLS, but the client sends plain text. Its request is refused.
  bool plain_on_tls() const { return plain_on_tls_; }
  std::string server_name() const;
  Endpoint destination() const;
  // Closes the socket; the object lives until the end of the loop's round.
  void close();
  // The same after the last answer. Over TLS, a close_notify is sent first (RFC 8446 §6.1).
  void close_in_order();
  bool closed() const { return stage_ == Stage::closed; }
  // No request is in progress and no answer is being sent. From now on the connection may be closed to make room. A new
  // connection begins in this state. Call note_busy() for each whole request head.
  void note_idle();
  void note_busy();
  // Charges the client's address as much as `tokens` new connections would cost. Trusted proxies are not charged.
  void charge_address(uint64_t tokens);

  // Its position in the worker's list.
  size_t index() const { return index_; }
  void set_index(size_t index) { index_ = index; }
  bool awaits_round_end = false;

 private:
  enum class Stage : uint8_t { await_proxy, await_tls, handshake, refused, sniff, talking, closed };
  void on_proxy_header();
  bool take_client(const ProxyAddresses& addresses);
  void on_first_byte();
  void on_handshake();
  void on_handshake_failed();
  void take_certificate(const TlsStream& tls);
  void judge_certificate(const PlanPin& pin);
  void linger();
  void on_sniff();
  void talk(bool http2);

  Worker& worker_;
  ProxyTransport transport_;
  InBuffer in_;
  Timer timer_;
  std::unique_ptr<ClientProtocol> protocol_;
  ClientFacts facts_;
  Limits limits_;
  AddressTable::Hold address_hold_;
  const Endpoint bind_;  // where it was accepted; it identifies the listener, also in later versions
  std::string peer_text_, listener_name_, server_name_;
  std::shared_ptr<TlsContext> tls_;  // set from accept to the end of the handshake
  // For a listener that asks for certificates.
  struct ClientCertificate {
    std::unique_ptr<PeerCertificate> shown;  // null: the client has shown none
    std::string rules;                       // digest of the rules by which it was accepted
  };
  std::unique_ptr<ClientCertificate> certificate_;  // null: the listener has asked for none
  uint64_t facts_of_ = 0;                           // Plan::sequence
  size_t index_;
  std::optional<Endpoint> destination_;  // from a PROXY header
  Endpoint reached_;                     // destination(), if requests are remembered
  Stage stage_ = Stage::sniff;
  bool plain_on_tls_ = false;
  bool request_begun_ = false;  // a request has begun on this connection
  uint64_t handshake_began_ns_ = 0;
  uint32_t lingered_bytes_ = 0;
};

}  // namespace tidegate::l7
