// SPDX-License-Identifier: Apache-2.0
// BackendH2Connection: an HTTP/2 connection to a backend (RFC 9113), shared by many exchanges.
//
// It begins with a socket that connects. Then either the backend speaks HTTP/2, by prior knowledge or because TLS chose
// it (ALPN), and streams begin; or TLS chose HTTP/1.1. In that case the socket goes to a BackendH1Connection. The first
// waiting stream gets this connection as its successor. The other streams choose a backend again.
//
// Bounds: kBackendHttp2Streams at one time, or what the backend allows. Every stream may hold one window of its
// response, and the connection's window has room for all of them: a client that does not read stops only its own
// stream. A stream's window grows while whole windows of it are taken (h2/windows.h), and the connection's with it.
// Http2Session shares the connection evenly among the streams that send.
//
// A connection takes no new streams (draining) after GOAWAY, and after an exchange that timed out while nothing at all
// came from the backend. It ends with its last stream.
//
// Ownership: BackendConnections. Threads: the worker's.
#pragma once

#include <memory>
#include <vector>

#include "core/event_loop.h"
#include "l7/backend/h2_stream.h"
#include "l7/backend/socket.h"
#include "l7/h2/session.h"
#include "l7/h2/wake_list.h"

namespace tidegate::l7 {

class BackendConnections;

class BackendH2Connection final : public BackendSocket::Owner, private Http2Session::User {
 public:
  // `must`: a backend that does not speak HTTP/2 is refused.
  enum class Wish : uint8_t { prefer, must };

  BackendH2Connection(std::unique_ptr<BackendSocket> socket, BackendConnections& home, BlockPool& blocks,
                      uint32_t backend, Wish wish);
  ~BackendH2Connection();

  // Whether one more stream may begin. `shared_early`: even while the backend's protocol is not known yet.
  bool has_room(bool shared_early) const;
  std::unique_ptr<BackendStream> open_stream();
  bool idle() const { return streams_.empty(); }
  uint64_t tcp_connected_ns() const { return socket_ == nullptr ? 0 : socket_->tcp_connected_ns(); }
  bool leads_to(const BackendPeer& peer) const { return socket_ != nullptr && socket_->leads_to(peer); }
  // Whether the socket is still open. It is checked once per round of the loop, because several streams may begin in
  // one round.
  bool looks_alive();
  uint32_t backend() const { return backend_; }
  // Closes the connection for good. The remaining streams fail.
  void close(Failure failure);
  void on_socket() override;
  void on_acceptance() override;
  Acceptance acceptance() const { return socket_ == nullptr ? Acceptance::unknown : socket_->acceptance(); }
  bool seen_acknowledged() const { return socket_ != nullptr && socket_->seen_acknowledged(); }
  // Makes everything that several exchanges send in one round of the loop leave together, at its end.
  void send_at_round_end() {
    if (!pumping_ && !closed_ && !awaits_round_end) call_at_round_end();
  }
  void on_round_end();
  bool awaits_round_end = false;  // for BackendConnections: it is in the list of those that send

 private:
  friend class BackendH2Stream;

  void call_at_round_end();
  void on_connected();
  void begin_session();
  void hand_over_to_http1();
  // Returns false if the connection is over.
  bool receive();
  // Calls the users of streams that have moved and sends what is ready, until nothing moves.
  void pump();
  void send_frames();
  void call_users();
  void wake(BackendH2Stream& stream) { awake_.add(stream); }
  // A transaction ends its use of the stream.
  void leave(BackendH2Stream& stream, uint64_t keepalive_timeout_ms);
  void forget(BackendH2Stream& stream);
  // A whole window of the response was taken, and more follows.
  void widen(BackendH2Stream& stream);
  void narrow();
  // Ends our side of a tunnel that the backend has ended, so that the stream need not be reset.
  void end_tunnel_in_order(BackendH2Stream& stream);
  void fail_stream(BackendH2Stream& stream, Failure failure, std::string_view detail = {});

  // h2_callbacks.cc
  Http2Stream& open_stream(int32_t id) override;
  bool on_field(Http2Stream& of, const Http2Field& field) override;
  bool on_bad_field(Http2Stream& of) override;
  void on_head(Http2Stream& of, bool ends) override;
  void on_malformed(Http2Stream& of, bool whole) override;
  void on_data(Http2Stream& of, std::string_view data) override;
  void on_content_end(Http2Stream& of) override;
  void on_settings() override;
  void on_goaway(int32_t last_id) override;
  void write_head(Http2Stream& of, bool ends, ProxyTransport& transport) override;
  Http2Content content_of(const Http2Stream& of) const override;
  void write_content(Http2Stream& of, size_t bytes, bool ends, ProxyTransport& transport) override;
  void on_closed(Http2Stream& of, Http2Error error) override;

  std::unique_ptr<BackendSocket> socket_;  // null: the socket went to HTTP/1
  BackendConnections& home_;
  BlockPool& blocks_;
  const uint32_t backend_;
  const Wish wish_;
  const uint64_t made_ns_;
  std::unique_ptr<Http2Session> session_;
  std::vector<BackendH2Stream*> streams_;  // all streams in use
  WakeList<BackendH2Stream> awake_;
  uint64_t begun_ = 0;        // number of streams that ever began
  uint64_t alive_at_ns_ = 0;  // the round in which looks_alive() found the socket open
  size_t grown_ = 0;          // growth of the connection's window, in bytes of the budget
  size_t grown_used_ = 0;     // bytes by which the windows of present streams have grown
  bool draining_ = false;     // takes no new streams
  bool goaway_ = false;
  bool settings_seen_ = false;  // the backend's SETTINGS have come
  bool closed_ = false;
  bool pumping_ = false;
  Timer keepalive_;
};

}  // namespace tidegate::l7
