// SPDX-License-Identifier: Apache-2.0
// H1Connection: HTTP/1.1 and 1.0 on a client's connection (RFC 9112). It serves one exchange at a time. Pipelined
// requests wait in the buffer. If the buffer is full, nothing more is read, and so the client is slowed down.
#pragma once

#include "core/http1.h"
#include "core/turn.h"
#include "l7/exchange/transaction.h"
#include "l7/listener/client_connection.h"

namespace tidegate::l7 {

class H1Connection final : public ClientProtocol, public ClientStream {
 public:
  explicit H1Connection(ClientConnection& connection) : connection_(connection), transport_(connection.transport()) {}

  // --- ClientProtocol
  void on_ready() override;
  void on_timer() override;
  void drain() override;
  // Nothing to do: the next answer ends the connection (Worker::draining), or it ends when it is idle.
  void leave() override {}
  void recycle() override { connection_.close_in_order(); }
  void on_closing() override;

  // --- ClientStream
  std::string_view next_piece() override;
  bool body_ended() const override { return body_ended_; }
  Failure body_failure() const override { return body_failure_; }
  std::string_view body_fault() const override { return body_fault_; }
  const Trailers& trailers() const override { return trailers_; }
  void want_body() override;
  void send_interim(const ResponseHead& interim) override;
  void send_head(const AnswerHead& head) override;
  bool ready_for_piece() override;
  void send_piece(std::string_view piece) override;
  void end_response(const Trailers& trailers) override;
  void abort_response() override;
  void flush() override;
  void on_transaction_over() override;
  const ClientFacts& facts() const override { return connection_.facts(); }
  std::string server_name() const override { return connection_.server_name(); }
  Endpoint destination() const override { return connection_.destination(); }

 private:
  enum class State : uint8_t {
    waiting,     // for a request, or for the rest of its head
    exchange,    // a transaction is running
    discarding,  // the answer came early: the rest of the request's body is read and dropped
    closing,     // the last bytes are being sent
    // half-closed: bytes that still come are read and dropped, so that no reset destroys the answer (RFC 9112 §9.6)
    lingering,
  };
  void read_requests();
  bool take_request();
  bool answers_taken();
  void refuse(const Refusal& refusal);
  std::string_view connection_options(const AnswerHead& head) const;
  bool says_length(const AnswerHead& head) const;
  void begin_body(const http1::Head& head);
  bool fill_body();
  bool fill_head();
  void finish_closing();
  void linger();
  void watch_client();
  void look_at_client();
  void discard_body();
  bool has_left() const;
  void lose_client();

  ClientConnection& connection_;
  ProxyTransport& transport_;
  Transaction* transaction_ = nullptr;
  http1::ChunkedDecoder chunks_;
  Trailers trailers_;  // of the request
  TurnCount turn_requests_;
  State state_ = State::waiting;
  http1::Framing body_framing_ = http1::Framing::none;
  Failure body_failure_ = Failure::none;
  std::string_view body_fault_;  // name of the parser's fault
  Patience patience_;            // for the client, while bytes wait to be sent
  size_t scanned_ = 0;
  size_t taken_ = 0;        // bytes of the buffer that the last next_piece() returned
  uint64_t remaining_ = 0;  // of a request body of known length
  size_t discarded_bytes_ = 0;
  size_t lingered_bytes_ = 0;
  bool head_begun_ = false;  // the timer for the head is running
  bool body_ended_ = true;
  bool expect_continue_ = false;
  bool tunnel_ = false;  // the connection's last exchange is a tunnel: both sides send until each of them ends
  bool keep_alive_ = true;
  bool http10_ = false;
  bool chunked_response_ = false;
  bool until_close_response_ = false;
  bool response_begun_ = false;
  bool draining_ = false;
  bool reading_ = false;  // read_requests() is on the stack
};

}  // namespace tidegate::l7
