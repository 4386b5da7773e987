// SPDX-License-Identifier: Apache-2.0
// BackendStream: what a transaction needs of the backend's side of one exchange, whether it is a whole HTTP/1
// connection or one HTTP/2 stream. Like ClientStream, the user asks it for everything. It only calls its user when
// there is progress.
//
//   connected() → begin() → { send_piece() → end_request() } beside { head_ready() → take_head() → accept_head() →
//   next_piece() → response_ended() } → give_back()
//
// Ownership: the transaction's, from BackendConnections::take_idle() or open() until give_back(). Threads: the
// worker's.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "conf/model/pool.h"
#include "l7/backend/acceptance.h"
#include "l7/exchange/failure.h"
#include "l7/exchange/forwarding.h"
#include "l7/wire/arena.h"
#include "l7/wire/message.h"

namespace tidegate::l7 {

// How a connection opens a tunnel for a request with `upgrade`.
enum class Tunnels : uint8_t {
  by_upgrade,  // HTTP/1.1: the field Upgrade (RFC 9110 §7.8)
  by_connect,  // HTTP/2: extended CONNECT (RFC 8441)
  none,        // HTTP/2, but the backend does not allow extended CONNECT
  unknown,     // HTTP/2, but the backend's SETTINGS have not come. The user is called when they have.
};

class BackendStream {
 public:
  class User {
   public:
    virtual void on_backend() = 0;  // there is progress; the callee may give the stream back
    // An interim answer (1xx other than 100 and 101). It is valid during the call, which must not give the stream back.
    virtual void on_interim(ResponseHead& interim) = 0;

   protected:
    ~User() = default;
  };

  virtual ~BackendStream() = default;

  // --- the connection
  // Sets the user that is called from now on.
  virtual void set_user(User& user) = 0;
  // True if the request may begin.
  virtual bool connected() const = 0;
  // Other requests were sent on the connection before.
  virtual bool reused() const = 0;
  // When TCP was connected, before TLS. 0: it is not connected.
  virtual uint64_t tcp_connected_ns() const { return 0; }
  // The state of a new connection in the backend's kernel. If the queue of that kernel is full, it drops connections
  // that it seemed to accept, and tells nobody. The user is called when the proxy notices this, and again from time to
  // time.
  virtual Acceptance acceptance() const { return Acceptance::acknowledged; }
  // The backend has sent something since begin().
  virtual bool anything_received() const = 0;
  virtual Failure failure() const = 0;
  // Details of the failure for the log: the words of the kernel or of OpenSSL, or the parser's fault. May be empty.
  virtual const std::string& failure_detail() const = 0;
  // Ask after connected().
  virtual Tunnels tunnels() const { return Tunnels::by_upgrade; }
  // TLS has chosen another protocol than this stream's. Ask before connected(). The successor is used instead. It is
  // null if another exchange has the connection; then a backend must be chosen again.
  virtual bool superseded() const { return false; }
  virtual std::unique_ptr<BackendStream> take_successor() { return nullptr; }

  // --- the request
  // Composes the request's head for this connection's protocol and gathers it. Once, after connected(). `arena` and
  // `response` are the exchange's: the response's head will be put there.
  virtual void begin(const BackendRequest& request, Arena& arena, ResponseHead& response) = 0;
  // True if the backend can say that it did not process a request. Such a request is sent again, if its body is still
  // in memory.
  virtual bool may_refuse() const { return false; }
  virtual bool ready_for_piece() = 0;
  virtual void send_piece(std::string_view piece) = 0;
  // `trailers` are sent if the protocol and the framing of the body allow it. After an extended CONNECT this ends
  // nothing, because the tunnel follows.
  virtual void end_request(const Trailers& trailers) = 0;
  // In a tunnel: half-closes after everything was sent.
  virtual void end_tunnel() = 0;
  virtual void flush() = 0;

  // --- the response
  // The final response's head is there. 101 counts as final, 100 is dropped, and other 1xx are passed to
  // User::on_interim. Too many of them are a failure.
  virtual bool head_ready() const = 0;
  // Puts the head into `response`. Its fields may borrow this stream's buffer until accept_head().
  virtual MessageFault take_head() = 0;
  // The body begins.
  virtual void accept_head() = 0;
  // The next bytes of the body, or nothing if there are none now. Valid until the next call.
  virtual std::string_view next_piece() = 0;
  virtual bool response_ended() const = 0;
  // The trailers, after response_ended(). They live as long as the arena.
  virtual const Trailers& trailers() const = 0;

  // Ends the use of `stream`. Its connection is kept if another exchange may follow. Safe from within on_backend().
  static void give_back(std::unique_ptr<BackendStream> stream, const Pool& pool) {
    BackendStream* const given = stream.release();
    given->end_use(pool);
  }

 private:
  // The stream deletes itself, or the owner of its connection keeps it.
  virtual void end_use(const Pool& pool) = 0;
};

}  // namespace tidegate::l7
