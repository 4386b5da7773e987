// SPDX-License-Identifier: Apache-2.0
// H2Stream: the client's side of one exchange on an HTTP/2 connection (RFC 9113 §5).
//
// The body of a request waits in in_, at most one window of it. Only when the transaction takes it may the client send
// more. A piece of the answer waits in out_ until the client's windows and the socket take it.
//
// Ownership: its H2Connection owns it. It is destroyed when the stream is closed, even while its transaction is running
// (client_gone()).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "l7/exchange/client_stream.h"
#include "l7/h2/held_heads.h"
#include "l7/h2/held_reset.h"
#include "l7/h2/session.h"
#include "l7/h2/session_memory.h"
#include "l7/h2/wake_list.h"
#include "l7/h2/windows.h"
#include "l7/wire/buffer.h"
#include "l7/wire/message.h"

namespace tidegate::l7 {

class Transaction;
class H2Connection;

// One stream: one request and its answer.
class H2Stream final : public ClientStream, public Http2Stream, public InSessionBlocks {
 public:
  explicit H2Stream(H2Connection& connection);

  // --- ClientStream
  std::string_view next_piece() override;
  bool body_ended() const override { return body_ended_ && in_.bytes() == taken_; }
  Failure body_failure() const override {
    return body_fault_ == MessageFault::none ? Failure::none : Failure::bad_request;
  }
  std::string_view body_fault() const override { return name(body_fault_); }
  const Trailers& trailers() const override { return trailers_; }
  void want_body() override;
  void send_interim(const ResponseHead& interim) override;
  void send_head(const AnswerHead& head) override;
  bool ready_for_piece() override { return out_.bytes() == 0; }
  void send_piece(std::string_view piece) override;
  void end_response(const Trailers& trailers) override;
  void abort_response() override;
  void flush() override;
  void on_transaction_over() override;
  const ClientFacts& facts() const override;
  std::string server_name() const override;
  Endpoint destination() const override;

 private:
  friend class H2Connection;
  friend class WakeList<H2Stream>;
  template <class Each>
  void add_interim(const Each& each);  // as HeldHeads::hold()
  void make_room_for_rest();
  void leave_rest();

  H2Connection& connection_;
  size_t place_ = 0;  // among the connection's streams
  Transaction* transaction_ = nullptr;
  Http2RequestBuilder builder_;
  MessageFault fault_ = MessageFault::none;
  MessageFault body_fault_ = MessageFault::none;  // a fault of the trailers
  Trailers trailers_;                             // trailers of the request
  HeldHeads heads_;                               // of the answer
  BlockQueue in_;                                 // the request's body
  OutQueue out_;                                  // the answer's body
  size_t taken_ = 0;                              // bytes of in_ that the last next_piece() returned
  StreamWindow window_{kHttp2StreamWindowBytes};  // for the request's body
  HeldReset held_reset_;                          // after the answer, if the request's body continues
  uint64_t received_ = 0;                         // of the request's body
  uint64_t sent_ = 0;                             // of the answer's
  Patience patience_;                             // for the client, while its window for this stream is shut
  Failure gone_why_ = Failure::client_gone;
  bool takes_rest_ = false;  // the rest of the body is still read after the answer
  bool head_ended_ = false;
  bool head_ends_stream_ = false;
  bool begun_ = false;          // its transaction is running, or has run
  bool backend_broke_ = false;  // we reset the stream, and not because of the client
  bool body_ended_ = false;
  bool response_begun_ = false;
  bool has_body_ = false;        // the answer has DATA frames
  bool response_ended_ = false;  // nothing more will be added to out_
  bool has_trailers_ = false;    // the answer's last head, which is sent after out_
  bool awake_ = false;           // in the connection's list of streams to resume
};

}  // namespace tidegate::l7
