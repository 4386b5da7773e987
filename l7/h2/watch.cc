// SPDX-License-Identifier: Apache-2.0
// The timer of an HTTP/2 connection: ends what has waited too long for the client, and does what is due.
#include <algorithm>

#include "core/clock.h"
#include "l7/exchange/transaction.h"
#include "l7/h2/connection.h"
#include "l7/worker.h"

namespace tidegate::l7 {

// Events do not postpone the timer. When it fires, it checks what is due and is armed again.
void H2Connection::look_at_ns(uint64_t at_ns) {
  if (at_ns >= next_look_ns_) return;
  next_look_ns_ = at_ns;
  connection_.timer().arm_at_ns(at_ns);
}

void H2Connection::note_progress() { progress_ns_ = connection_.worker().loop().now_ns(); }

// Updates whether we wait for the client: it takes nothing from the socket, or keeps its window shut.
void H2Connection::watch_client() {
  const PatienceTerms& terms = connection_.facts().patience;
  const uint64_t now_ns = connection_.worker().loop().now_ns();
  uint64_t next_ns = now_ns + terms.whole_ns;
  const bool socket_full = !transport_.drained();
  if (socket_full) {
    next_ns = std::min(next_ns, socket_patience_.wait(terms, now_ns));
  } else {
    socket_patience_.pause(now_ns);
  }
  if (!socket_full && answers_waiting_ > 0 && session_.send_window() <= 0) {
    next_ns = std::min(next_ns, window_patience_.wait(terms, now_ns));
  } else {
    window_patience_.pause(now_ns);
  }
  look_at_ns(next_ns);
}

void H2Connection::watch_stream(H2Stream& stream) {
  const uint64_t now_ns = connection_.worker().loop().now_ns();
  if (stream.out_.bytes() > 0 && stream.send_window() <= 0) {
    look_at_ns(stream.patience_.wait(connection_.facts().patience, now_ns));
  } else {
    stream.patience_.pause(now_ns);
  }
}

// Ends what has waited too long for the client, and arms the timer for the next possible time. Frames that move no body
// (PING, SETTINGS) renew nothing. Streams that wait for their backends are watched by their transactions.
void H2Connection::on_timer() {
  if (sent_away_) return connection_.close();
  const PatienceTerms& terms = connection_.facts().patience;
  const uint64_t now_ns = connection_.worker().loop().now_ns();
  next_look_ns_ = UINT64_MAX;
  if (draining_ && !last_said_) {
    if (now_ns >= say_last_at_ns_) {
      say_last_request();
    } else {
      look_at_ns(say_last_at_ns_);
    }
  }
  uint64_t taken_until_ns = UINT64_MAX;
  if (socket_patience_.waiting()) {
    taken_until_ns = socket_patience_.renew(terms, transport_.bytes_acknowledged(), now_ns);
  }
  if (window_patience_.waiting()) {
    taken_until_ns = std::min(taken_until_ns, window_patience_.renew(terms, sent_, now_ns));
  }
  if (taken_until_ns <= now_ns) {
    for (const auto& stream : streams_) stream->gone_why_ = Failure::client_too_slow;
    return give_up();
  }
  uint64_t next_ns = std::min(now_ns + terms.whole_ns, taken_until_ns);
  if (unfinished_heads_ > 0) {
    next_ns = std::min(next_ns, head_begun_ns_ + connection_.limits().header_timeout_ms * kNsPerMs);
    // In a drain nothing else may be in progress, so an incomplete head must not delay it.
    const bool alone = streams_.size() == unfinished_heads_;
    if (draining_ && alone)
      next_ns = std::min(next_ns, say_last_at_ns_ + (kDrainHeadMs - kHttp2GoawayWaitMs) * kNsPerMs);
  }
  const bool backend_awaited = std::any_of(streams_.begin(), streams_.end(), [](const auto& stream) {
    return stream->transaction_ != nullptr && stream->head_ended_ && stream->out_.bytes() == 0;
  });
  if (transport_.drained() && answers_waiting_ == 0 && !backend_awaited) {
    next_ns = std::min(next_ns, progress_ns_ + terms.whole_ns);
  }
  if (next_ns <= now_ns) return give_up();
  look_at_ns(std::min(next_ns, look_at_streams(now_ns)));
  if (session_.wants_to_send()) pump();
}

// Ends each stream whose client has kept the stream's window shut for too long, while other streams may move. Returns
// when the next one is due.
uint64_t H2Connection::look_at_streams(uint64_t now_ns) {
  uint64_t next_ns = UINT64_MAX;
  for (const auto& stream : streams_) {
    if (stream->held_reset_.take_due(now_ns)) {
      session_.reset(*stream, Http2Error::no_error);
    } else if (stream->held_reset_.held()) {
      next_ns = std::min(next_ns, stream->held_reset_.due_ns());
    }
    watch_stream(*stream);
    if (!stream->patience_.waiting()) continue;
    const uint64_t end_ns = stream->patience_.renew(connection_.facts().patience, stream->sent_, now_ns);
    if (end_ns > now_ns) {
      next_ns = std::min(next_ns, end_ns);
    } else {
      stream->gone_why_ = Failure::client_too_slow;
      session_.reset(*stream, Http2Error::cancel);
    }
  }
  return next_ns;
}

}  // namespace tidegate::l7
