// SPDX-License-Identifier: Apache-2.0
// BackendConnection: one HTTP/1.1 connection to a backend, used for one exchange at a time and kept between them.
//
// Like ClientStream it is asked, not pushed: it calls its user when something has moved. What it gives (response head,
// body pieces) are views into its own buffer, which stops reading the socket while nobody asks: that is the
// back-pressure.
#pragma once

#include <memory>
#include <string>

#include "core/event_loop.h"
#include "core/http1.h"
#include "core/ip.h"
#include "l7/exchange/failure.h"
#include "l7/wire/buffer.h"
#include "l7/wire/transport.h"

namespace tidegate::l7 {

class BackendConnections;

// Whom a connection is made to, and whom it believes. Borrowed for a call.
struct BackendPeer {
  Endpoint endpoint;
  const std::shared_ptr<TlsContext>& tls;  // null: plain
  const std::string& server_name;          // to ask for and to check; empty: the address is checked
  uint64_t idle_timeout_ms = 0;            // how long it may keep its window shut
};

class BackendConnection final : public IoHandler {
 public:
  class User {
   public:
    virtual void on_backend() = 0;  // something has moved; may let go of the connection
    // An interim answer (1xx other than 100 and 101). Its views are valid during the call. The call must not let go of
    // the connection.
    virtual void on_interim(const http1::Head& head) = 0;

   protected:
    ~User() = default;
  };

  BackendConnection(EventLoop& loop, BlockPool& blocks, BackendConnections& home, uint32_t backend,
                    const BackendPeer& peer);
  ~BackendConnection() = default;

  // Starts connecting by a socket that is not connected yet; connected() or failure() will tell.
  void connect(UniqueFd fd, uint64_t idle_timeout_ms);
  // A new exchange on this connection. `head` is sent (once connected); `to_head`: no body will follow the response.
  void begin(User& user, std::string_view head, bool chunked_body, bool to_head);

  bool connected() const { return state_ == State::open; }
  bool reused() const { return exchanges_ > 1; }
  bool anything_received() const { return transport_.bytes_read() != read_before_; }
  Failure failure() const { return failure_; }
  // Details of it for the log: the words of the kernel or of OpenSSL, or the parser's fault. May be empty.
  const std::string& failure_detail() const { return failure_detail_; }

  // --- the request's body
  bool ready_for_piece();
  void send_piece(std::string_view piece);
  void end_request();
  // In a tunnel: half-closes once all that was sent has left.
  void end_tunnel();
  void flush();

  // --- the response
  // The final response's head once it is there; valid until accept_head(). 101 counts as final, 100 is
  // dropped, and other 1xx are passed to User::on_interim. Too many of them are a failure.
  const http1::Head* head() const { return head_ready_ ? &head_ : nullptr; }
  // The head's views die; the body begins.
  void accept_head();
  // The next bytes of the body, or nothing now. Good until the next call.
  std::string_view next_piece();
  bool response_ended() const { return response_ended_; }

  // After a whole exchange the connection may serve another.
  bool reusable() const;
  // Whether the kernel still believes in an idle connection: a last look before a request that cannot be repeated.
  bool looks_alive() const;

  uint32_t backend() const { return backend_; }
  bool leads_to(const BackendPeer& peer) const {
    return endpoint_ == peer.endpoint && tls_ == peer.tls && server_name_ == peer.server_name;
  }
  void on_io(uint32_t events) override;

 private:
  friend class BackendConnections;
  enum class State : uint8_t { connecting, handshaking, open, idle, dead };
  void on_connecting();
  void on_handshaking();
  void on_connected();
  void read_head();
  bool parse_head();
  bool fill();
  void fail_with(Failure failure, std::string_view detail = {});

  EventLoop& loop_;
  BackendConnections& home_;
  const uint32_t backend_;
  const Endpoint endpoint_;
  const std::shared_ptr<TlsContext> tls_;
  const std::string server_name_;
  Transport transport_;
  InBuffer in_;
  User* user_ = nullptr;
  http1::Head head_;
  http1::ChunkedDecoder chunks_;
  State state_ = State::connecting;
  Failure failure_ = Failure::none;
  std::string failure_detail_;
  uint64_t read_before_ = 0;  // transport_.bytes_read() when the exchange began
  uint64_t exchanges_ = 0;
  uint32_t interim_ = 0;  // 1xx heads of this exchange
  size_t scanned_ = 0;
  size_t head_bytes_ = 0;
  size_t taken_ = 0;        // of in_, by the last next_piece()
  uint64_t remaining_ = 0;  // of a body of known length
  bool to_head_ = false;
  bool chunked_request_ = false;
  bool request_ended_ = false;
  bool tunnel_ending_ = false;  // the client has ended its side; what it sent before is still leaving
  bool head_ready_ = false;
  bool response_ended_ = false;
  Timer keepalive_;
};

}  // namespace tidegate::l7
