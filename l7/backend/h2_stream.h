// SPDX-License-Identifier: Apache-2.0
// BackendH2Stream: the backend's side of one exchange as a stream of a shared HTTP/2 connection (RFC 9113 §5).
//
// The response's body waits in in_, at most one window of it, until it is taken. A piece of the request's body waits in
// out_ until the backend's windows and the socket take it.
//
// Ownership: the transaction owns it. Its BackendH2Connection may end earlier. Then failure() says why.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "conf/model/pool.h"
#include "l7/backend/stream.h"
#include "l7/h2/session.h"
#include "l7/h2/session_memory.h"
#include "l7/h2/wake_list.h"
#include "l7/h2/windows.h"
#include "l7/wire/buffer.h"

namespace tidegate::l7 {

class BackendH2Connection;

class BackendH2Stream final : public BackendStream, public Http2Stream, public InSessionBlocks {
 public:
  BackendH2Stream(BackendH2Connection& connection, BlockPool& blocks);
  ~BackendH2Stream() override;

  void set_user(User& user) override { user_ = &user; }
  bool connected() const override;
  bool reused() const override { return reused_; }
  uint64_t tcp_connected_ns() const override;
  Acceptance acceptance() const override;
  bool anything_received() const override;
  Failure failure() const override { return failure_; }
  const std::string& failure_detail() const override { return failure_detail_; }
  Tunnels tunnels() const override;
  bool superseded() const override { return superseded_; }
  std::unique_ptr<BackendStream> take_successor() override { return std::move(successor_); }
  void begin(const BackendRequest& request, Arena& arena, ResponseHead& response) override;
  bool may_refuse() const override { return true; }
  bool ready_for_piece() override;
  void send_piece(std::string_view piece) override;
  void end_request(const Trailers& trailers) override;
  void end_tunnel() override;
  void flush() override;
  bool head_ready() const override { return head_ready_; }
  MessageFault take_head() override { return fault_; }
  void accept_head() override;
  std::string_view next_piece() override;
  bool response_ended() const override { return accepted_ && body_ended_ && in_.bytes() == taken_; }
  const Trailers& trailers() const override { return trailers_; }

 private:
  friend class BackendH2Connection;
  friend class WakeList<BackendH2Stream>;
  void end_use(const Pool& pool) override;
  // The parts of a received header block. False: the stream must be reset.
  void add_field(const Http2Field& field);
  bool end_block(bool end_of_stream);
  bool end_interim();
  void set_body(bool end_of_stream);
  void end_content();
  void fail_with(Failure failure, std::string_view detail = {});

  BackendH2Connection* connection_;  // null: the connection is gone
  size_t place_ = 0;                 // its index in the connection's list of streams
  User* user_ = nullptr;
  Arena* arena_ = nullptr;
  ResponseHead* response_ = nullptr;
  BlockQueue in_;
  OutQueue out_;
  Trailers trailers_;
  FieldSpan head_;             // of the request: the session says when it is sent
  Trailers request_trailers_;  // to be sent after out_
  std::unique_ptr<BackendStream> successor_;
  std::string failure_detail_;
  Failure failure_ = Failure::none;
  MessageFault fault_ = MessageFault::none;
  StreamWindow window_{kBackendHttp2WindowBytes};  // for the response's body
  size_t taken_ = 0;                               // bytes of in_ that the last next_piece() returned
  // bytes of the heads so far, interim ones included; then of the trailers
  size_t header_bytes_ = 0;
  uint64_t read_before_ = 0;
  uint64_t begun_ns_ = 0;
  uint32_t interim_ = 0;
  bool reused_ = false;
  bool superseded_ = false;
  bool to_head_ = false;
  bool tunnel_ = false;     // the request is an extended CONNECT
  bool head_sent_ = false;  // of the request
  bool request_ended_ = false;
  bool head_ended_ = false;  // the head of the final response has ended
  bool head_ready_ = false;
  bool accepted_ = false;
  bool body_ended_ = false;
  bool closed_ = false;  // the session has closed the stream
  bool heard_ = false;   // the connection is closed, and something had come from the backend since begin()
  bool awake_ = false;   // in the connection's list of streams whose user must be called
};

}  // namespace tidegate::l7
