// SPDX-License-Identifier: Apache-2.0
#include "l7/h2/stream.h"

#include <fmt/format.h>

#include <array>
#include <cstring>
#include <span>
#include <utility>

#include "l7/h2/connection.h"
#include "l7/h2/pairs.h"
#include "l7/worker.h"

namespace tidegate::l7 {
namespace {

// Room for an answer's fields, its status and its length.
using FieldPairs = std::array<nghttp2_nv, http1::kMaxFields + 40>;

// Returns the number of pairs. `id_flags`: of the request's id.
size_t put_fields(FieldPairs& pairs, std::string_view status, const FieldList& fields, uint8_t id_flags) {
  size_t count = 0;
  pairs[count++] = http2_pair(":status", status);
  for (const Field& field : fields) {
    if (field.kind == FieldKind::hop_by_hop) continue;  // in HTTP/2 there is no Upgrade (RFC 9113 §8.2.2)
    pairs[count] = http2_pair(field.name, field.value);
    if (field.kind == FieldKind::x_request_id) pairs[count].flags = id_flags;
    ++count;
  }
  return count;
}

// Moves the texts into `room`, if all of them fit: then nghttp2 need not copy each.
void lend_texts(std::span<nghttp2_nv> pairs, std::span<char> room) {
  size_t bytes = 0;
  for (const nghttp2_nv& pair : pairs) bytes += pair.namelen + pair.valuelen;
  if (bytes > room.size()) return;
  char* next = room.data();
  const auto keep = [&next](uint8_t*& text, size_t text_bytes) {
    std::memcpy(next, text, text_bytes);
    text = reinterpret_cast<uint8_t*>(std::exchange(next, next + text_bytes));
  };
  for (nghttp2_nv& pair : pairs) {
    keep(pair.name, pair.namelen);
    if (pair.valuelen > 0) keep(pair.value, pair.valuelen);
    pair.flags |= kHttp2Borrowed;
  }
}

}  // namespace

static_assert(sizeof(H2Stream) <= SessionBlocks::kMostBytes);

H2Stream::H2Stream(H2Connection& connection, int32_t id)
    : connection_(connection),
      id_(id),
      in_(connection.connection_.worker().blocks()),
      out_(connection.connection_.worker().blocks()) {}

std::string_view H2Stream::next_piece() {
  if (taken_ > 0) {
    in_.sent(taken_);
    nghttp2_session_consume(connection_.session_.get(), id_, taken_);
    const bool whole_window = window_.take(taken_) && in_.bytes() == 0;
    const bool more_comes = !body_ended_ && !takes_rest_ && !held_reset_.held();
    if (whole_window) connection_.windows_.widen(connection_.session_.get(), id_, window_, more_comes);
  }
  const std::string_view piece = in_.front();
  taken_ = piece.size();
  return piece;
}

void H2Stream::want_body() {
  if (body_ended_ || response_begun_ || transaction_ == nullptr || !transaction_->request().expect_continue) return;
  transaction_->request().expect_continue = false;
  const nghttp2_nv status = http2_pair(":status", "100");
  nghttp2_submit_headers(connection_.session_.get(), NGHTTP2_FLAG_NONE, id_, nullptr, &status, 1, nullptr);
}

void H2Stream::send_interim(const ResponseHead& interim) {
  if (response_begun_) return;
  FieldPairs pairs;
  const fmt::format_int status_text(interim.status);
  size_t count = put_fields(pairs, {status_text.data(), status_text.size()}, interim.fields, NGHTTP2_NV_FLAG_NO_INDEX);
  nghttp2_submit_headers(connection_.session_.get(), NGHTTP2_FLAG_NONE, id_, nullptr, pairs.data(), count, nullptr);
}

void H2Stream::send_head(const AnswerHead& head) {
  FieldPairs pairs;
  const fmt::format_int status_text(head.status), length_text(head.content_length);
  size_t count = put_fields(pairs, {status_text.data(), status_text.size()}, head.fields,
                            id_indexing(++connection_.answers_begun_));
  if (head.content_length_known && head.status != 204) {
    pairs[count++] = http2_pair("content-length", {length_text.data(), length_text.size()});
  }
  lend_texts({pairs.data(), count}, head_text_);
  if (head.body == BodyKind::none) make_room_for_rest();
  response_begun_ = true;
  has_body_ = head.body != BodyKind::none;
  nghttp2_data_provider provider{};
  provider.source.ptr = this;
  provider.read_callback = &H2Connection::read_body;
  nghttp2_submit_response(connection_.session_.get(), id_, pairs.data(), count, has_body_ ? &provider : nullptr);
}

void H2Stream::send_piece(std::string_view piece) {
  if (out_.bytes() == 0 && !piece.empty()) ++connection_.answers_waiting_;
  if (!out_.append(piece)) return abort_response();
  connection_.watch_stream(*this);
  nghttp2_session_resume_data(connection_.session_.get(), id_);
}

void H2Stream::end_response(const Trailers& trailers) {
  response_ended_ = true;
  size_t trailer_bytes = 0;
  for (const Field& field : trailers) trailer_bytes += field.name.size() + field.value.size() + 4;
  answer_trailers_.reserve(trailer_bytes);
  for (const Field& field : trailers) {
    answer_trailers_.append(field.name).append(": ").append(field.value).append("\r\n");
  }
  if (!has_body_) return;
  make_room_for_rest();
  nghttp2_session_resume_data(connection_.session_.get(), id_);
}

void H2Stream::abort_response() {
  backend_broke_ = true;
  nghttp2_submit_rst_stream(connection_.session_.get(), NGHTTP2_FLAG_NONE, id_, NGHTTP2_INTERNAL_ERROR);
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
