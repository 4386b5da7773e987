// SPDX-License-Identifier: Apache-2.0
#include "l7/h2/stream.h"

#include <fmt/format.h>

#include "l7/h2/connection.h"
#include "l7/h2/sent_fields.h"
#include "l7/worker.h"

namespace tidegate::l7 {
namespace {

template <class Put>
void put_fields(const Put& put, std::string_view status, const FieldList& fields) {
  put(":status", status, Indexing::by_name);
  for (const Field& field : fields) {
    if (field.kind == FieldKind::hop_by_hop) continue;  // in HTTP/2 there is no Upgrade (RFC 9113 §8.2.2)
    put(field.name, field.value, indexing_of(field.kind));
  }
}

}  // namespace

static_assert(sizeof(H2Stream) <= SessionBlocks::kMostBytes);

H2Stream::H2Stream(H2Connection& connection)
    : connection_(connection),
      in_(connection.connection_.worker().blocks()),
      out_(connection.connection_.worker().blocks(), OutQueue::First::small) {}

std::string_view H2Stream::next_piece() {
  if (taken_ > 0) {
    in_.sent(taken_);
    connection_.session_.take(*this, taken_);
    const bool whole_window = window_.take(taken_) && in_.bytes() == 0;
    const bool more_comes = !body_ended_ && !takes_rest_ && !held_reset_.held();
    if (whole_window) connection_.windows_.widen(connection_.session_, *this, window_, more_comes);
  }
  const std::string_view piece = in_.front();
  taken_ = piece.size();
  return piece;
}

template <class Each>
void H2Stream::add_interim(const Each& each) {
  if (!heads_.hold(each)) return abort_response();
  connection_.session_.add_head(*this, false);
}

void H2Stream::want_body() {
  if (body_ended_ || response_begun_ || transaction_ == nullptr || !transaction_->request().expect_continue) return;
  transaction_->request().expect_continue = false;
  add_interim([](const auto& put) { put(":status", "100", Indexing::by_name); });
}

void H2Stream::send_interim(const ResponseHead& interim) {
  if (response_begun_) return;
  const fmt::format_int status(interim.status);
  add_interim([&](const auto& put) { put_fields(put, {status.data(), status.size()}, interim.fields); });
}

void H2Stream::send_head(const AnswerHead& head) {
  const fmt::format_int status(head.status), length(head.content_length);
  const bool held = heads_.hold([&](const auto& put) {
    put_fields(put, {status.data(), status.size()}, head.fields);
    if (head.content_length_known && head.status != 204) {
      put("content-length", {length.data(), length.size()}, Indexing::by_name);
    }
  });
  response_begun_ = true;
  if (!held) return abort_response();
  if (head.body == BodyKind::none) make_room_for_rest();
  has_body_ = head.body != BodyKind::none;
  connection_.session_.add_head(*this, !has_body_);
  if (has_body_) connection_.session_.add_content(*this);
}

void H2Stream::send_piece(std::string_view piece) {
  if (out_.bytes() == 0 && !piece.empty()) ++connection_.answers_waiting_;
  if (!out_.append(piece)) return abort_response();
  connection_.watch_stream(*this);
  connection_.session_.resume(*this);
}

void H2Stream::end_response(const Trailers& trailers) {
  response_ended_ = true;
  if (!has_body_) return;
  has_trailers_ = !trailers.empty();
  const auto each = [&](const auto& put) {
    for (const Field& field : trailers) put(field.name, field.value, Indexing::by_name);
  };
  if (has_trailers_ && !heads_.hold(each)) return abort_response();
  make_room_for_rest();
  connection_.session_.resume(*this);
}

void H2Stream::abort_response() {
  backend_broke_ = true;
  connection_.session_.reset(*this, Http2Error::internal_error);
}

void H2Stream::flush() { connection_.pump_at_round_end(); }

void H2Stream::on_transaction_over() {
  transaction_ = nullptr;
  connection_.pump_at_round_end();
}

const ClientFacts& H2Stream::facts() const { return connection_.connection_.facts(); }

Endpoint H2Stream::destination() const { return connection_.connection_.destination(); }

std::string H2Stream::server_name() const { return connection_.connection_.server_name(); }

}  // namespace tidegate::l7
