// SPDX-License-Identifier: Apache-2.0
// BackendH1Connection: one HTTP/1.1 connection to a backend. It serves one exchange at a time and is kept between them.
//
// It returns the response's head and pieces of its body as views into the socket's buffer. It reads the socket only
// when its user asks. That is the back-pressure.
#pragma once

#include <memory>
#include <string>

#include "conf/model/pool.h"
#include "core/http1.h"
#include "l7/backend/socket.h"
#include "l7/backend/stream.h"

namespace tidegate::l7 {

class BackendConnections;

class BackendH1Connection final : public BackendStream, public BackendSocket::Owner {
 public:
  // `socket` may still be connecting.
  BackendH1Connection(std::unique_ptr<BackendSocket> socket, BackendConnections& home, uint32_t backend);

  // --- BackendStream
  void set_user(User& user) override;
  bool connected() const override { return failure_ == Failure::none && socket_->is_open(); }
  bool reused() const override { return exchanges_ > 1; }
  uint64_t tcp_connected_ns() const override { return socket_->tcp_connected_ns(); }
  Acceptance acceptance() const override { return reused() ? Acceptance::acknowledged : socket_->acceptance(); }
  bool anything_received() const override { return socket_->transport().bytes_read() != read_before_; }
  Failure failure() const override { return failure_ != Failure::none ? failure_ : socket_->failure(); }
  const std::string& failure_detail() const override {
    return failure_ != Failure::none ? failure_detail_ : socket_->failure_detail();
  }
  void begin(const BackendRequest& request, Arena& arena, ResponseHead& response) override;
  bool ready_for_piece() override;
  void send_piece(std::string_view piece) override;
  void end_request(const Trailers& trailers) override;
  void end_tunnel() override;
  void flush() override;
  bool head_ready() const override { return head_ready_; }
  MessageFault take_head() override;
  void accept_head() override;
  std::string_view next_piece() override;
  bool response_ended() const override { return response_ended_; }
  const Trailers& trailers() const override { return trailers_; }

  // --- BackendSocket::Owner
  void on_socket() override;
  void on_acceptance() override;

  // --- for BackendConnections
  // After a whole exchange the connection may serve another.
  bool reusable() const;
  bool looks_alive() const { return socket_->looks_alive(); }
  bool leads_to(const BackendPeer& peer) const { return socket_->leads_to(peer); }
  bool seen_acknowledged() const { return socket_->seen_acknowledged(); }
  uint32_t backend() const { return backend_; }
  // Call it when no exchange uses the connection. The connection closes itself after `timeout_ms`.
  void rest(uint64_t timeout_ms);
  // Closes the connection.
  void close();

 private:
  enum class State : uint8_t { in_use, idle, closed };
  void end_use(const Pool& pool) override;
  void read_head();
  bool parse_head();
  void pass_interim();
  bool fill();
  void fail_with(Failure failure, std::string_view detail = {});

  const std::unique_ptr<BackendSocket> socket_;
  BackendConnections& home_;
  const uint32_t backend_;
  User* user_ = nullptr;
  Arena* arena_ = nullptr;            // arena of the exchange, from begin()
  ResponseHead* response_ = nullptr;  // response head of the exchange
  http1::Head head_;
  http1::ChunkedDecoder chunks_;
  Trailers trailers_;
  State state_ = State::in_use;
  Failure failure_ = Failure::none;
  std::string failure_detail_;
  uint64_t read_before_ = 0;  // the socket's bytes_read() when the exchange began
  uint64_t exchanges_ = 0;
  uint32_t interim_ = 0;  // 1xx heads of this exchange
  size_t scanned_ = 0;
  size_t head_bytes_ = 0;
  size_t taken_ = 0;        // bytes of the buffer that the last next_piece() returned
  uint64_t remaining_ = 0;  // of a body of known length
  bool begun_ = false;
  bool to_head_ = false;
  bool chunked_request_ = false;
  bool request_ended_ = false;
  bool tunnel_ending_ = false;  // the client has ended its side; bytes that it sent before are still waiting
  bool head_ready_ = false;
  bool response_ended_ = false;
  Timer keepalive_;
};

}  // namespace tidegate::l7
