// SPDX-License-Identifier: Apache-2.0
// One connection of an HttpServer. It receives requests one after the other, gives each to the handler, and sends the
// answer. Only for core/.
//
//    head -> body -> answering -> head ...          each stage names what the connection waits for
//                  \-> lingering -> closed          a refused request is answered; later input is discarded
//
// A request is processed only after the previous request was answered. Pipelined requests wait in the socket, so memory
// is bounded by one head, one body and one answer (or stream backlog).
//
// Ownership: The server's state owns connections. An exchange owns its connection. The connection has only a weak
// pointer to its exchange. close() may be called at any moment and ends every role at once.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <unordered_map>

#include "core/event_loop.h"
#include "core/http1.h"
#include "core/http_door.h"
#include "core/http_server.h"
#include "core/idle_list.h"
#include "core/metrics.h"
#include "core/out_buffer.h"
#include "core/transport.h"
#include "core/turn.h"

namespace tidegate {

using HttpHeaders = std::vector<std::pair<std::string, std::string>>;

class HttpConnection;

// What the connections of a server share. The state outlives the server while somebody holds an exchange.
struct HttpServerState {
  HttpServerState(EventLoop& loop_in, HttpHandler handler_in, const HttpServerLimits& limits_in);
  std::string_view date();  // IMF-fixdate (RFC 9110 §5.6.7), formatted once a second

  EventLoop& loop;
  const HttpHandler handler;
  const HttpServerLimits limits;
  std::unordered_map<HttpConnection*, std::shared_ptr<HttpConnection>> connections;
  std::array<Counter*, static_cast<size_t>(http1::Fault::count_)> refused{};
  Counter* refused_body_too_large = nullptr;
  Counter* refused_too_slow = nullptr;
  Counter* refused_too_many_streams = nullptr;
  std::array<Counter*, 4> refused_at_door{};  // indexed by HttpDoor::Refusal
  HttpDoor tcp_door, local_door;
  bool winding_down = false;  // each answer ends its connection

 private:
  std::string date_;
  uint64_t date_s_ = 0;
};

class ServerExchange;

class HttpConnection final : public IoHandler, public IdleLink, public std::enable_shared_from_this<HttpConnection> {
 public:
  HttpConnection(std::shared_ptr<HttpServerState> state, HttpDoor& door, HttpDoor::Place place, Transport transport,
                 std::optional<Endpoint> peer, uint32_t peer_uid);
  ~HttpConnection() = default;

  void start();  // registers with the loop; closes if the loop refuses
  void close();
  // Closes this idle connection to make room for another.
  void recycle() { close(); }
  bool closed() const { return stage_ == Stage::closed; }
  const std::optional<Endpoint>& peer() const { return peer_; }

  // Used by the current exchange:
  void respond(HttpResponse response);
  bool begin_stream(int status, HttpHeaders headers);  // false: it was answered otherwise, and there is no stream
  template <class Bytes>
  bool write_stream(size_t count, Bytes bytes);
  void end_stream();
  EventLoop& loop() { return state_->loop; }

 private:
  enum class Stage : uint8_t { head, body, answering, lingering, closed };

  void on_io(uint32_t events) override;
  void on_timeout();

  // Input:
  bool wants_input() const;
  void read_input();
  void discard_input();
  void process_input();
  bool take_head();
  bool take_body();
  bool take_chunked_body();
  void take_request(size_t head_bytes);
  bool append_body(std::string_view bytes);
  void dispatch();
  void refuse(int status, std::string_view detail);
  void refuse(http1::Fault fault);
  void resume_later();

  // Output:
  size_t unsent() const { return out_.size(); }
  void append_connection_fields(bool chunked);
  void finish_answer();
  void flush();
  void after_flush();
  void settle();  // sets epoll interest, timer and the door's list of idle connections according to the stage
  void end_streaming();

  std::string_view input() const { return std::string_view(in_).substr(taken_); }
  uint64_t now_ns() const { return state_->loop.now_ns(); }

  std::shared_ptr<HttpServerState> state_;
  HttpDoor& door_;
  std::optional<HttpDoor::Place> place_;  // held until the connection is closed
  Transport transport_;
  Timer timer_;
  const std::optional<Endpoint> peer_;
  const uint32_t peer_uid_;

  Stage stage_ = Stage::head;
  bool registered_ = false;
  bool processing_ = false;
  bool streaming_ = false;
  bool peer_done_ = false;  // the peer will send nothing more
  bool keep_alive_ = true;  // after the current answer
  bool head_only_ = false;  // the request was HEAD
  bool minor_0_ = false;    // the request was HTTP/1.0
  bool close_when_sent_ = false;
  bool linger_when_sent_ = false;
  bool read_wants_write_ = false;  // a TLS handshake may have to write before it can read
  bool write_wants_read_ = false;
  uint32_t interest_ = 0;
  TurnCount turn_requests_;
  uint64_t request_began_ns_ = 0;  // 0: no byte of the request yet
  uint64_t last_progress_ns_ = 0;  // when an answer ended or bytes were last sent

  std::string in_;  // received bytes; the first taken_ bytes are processed
  size_t taken_ = 0;
  size_t scanned_ = 0;
  http1::Head head_;
  http1::ChunkedDecoder chunks_;
  http1::Framing framing_ = http1::Framing::none;
  uint64_t body_remaining_ = 0;
  HttpRequest request_;
  std::weak_ptr<ServerExchange> exchange_;

  OutBuffer out_;
};

// False if a name or value would break the structure of the head.
bool is_sendable(const HttpHeaders& headers);
// Appends the status line, Date and `headers`. The caller appends the empty line.
void append_response_head(std::string& out, int status, const HttpHeaders& headers, std::string_view date);

}  // namespace tidegate
