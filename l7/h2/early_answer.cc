// SPDX-License-Identifier: Apache-2.0
// What happens to the rest of a request whose answer is complete first.
#include "l7/exchange/transaction.h"
#include "l7/h2/connection.h"
#include "l7/h2/stream.h"
#include "l7/limits.h"
#include "l7/worker.h"

namespace tidegate::l7 {

// The answer is about to end before the request. A short rest of the request is read and dropped, because a client that
// is reset while it sends may fail, although RFC 9113 §8.1 allows the reset. The window for the rest is opened before
// the answer's last frame: a client that has its answer may read no more window updates.
void H2Stream::make_room_for_rest() {
  if (body_ended_ || transaction_ == nullptr) return;
  const RequestHead& request = transaction_->request();
  takes_rest_ = request.body == BodyKind::known && request.content_length - received_ <= kHttp2RestBytes;
  if (!takes_rest_) return;
  connection_.session_.set_window(*this, window_.bytes() + request.content_length - received_);
}

// The answer's last frame was sent. The rest of the request is dropped. If it is long, a reset tells the client to
// stop, but only after kHttp2ResetDelayMs: curl 7.88 considers the answer broken if it reads the end of the answer and
// the reset together. Until then the stream's window is not opened again.
void H2Stream::leave_rest() {
  if (takes_rest_) {
    connection_.session_.take(*this, in_.bytes());
  } else {
    connection_.session_.take_of_connection(in_.bytes());
    held_reset_.hold(connection_.connection_.worker().loop().now_ns());
    connection_.look_at_ns(held_reset_.due_ns());
  }
  in_.clear();
  taken_ = 0;
}

}  // namespace tidegate::l7
