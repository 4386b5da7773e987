// SPDX-License-Identifier: Apache-2.0
#include "l7/h2/session.h"

#include "core/assert.h"

namespace tidegate::l7 {

void Http2StreamList::add(Http2Stream& stream) {
  if (stream.list_ == this) return;
  remove(stream);
  stream.list_ = this;
  stream.before_ = last_;
  (last_ == nullptr ? first_ : last_->after_) = &stream;
  last_ = &stream;
}

void Http2StreamList::remove(Http2Stream& stream) {
  Http2StreamList* const list = stream.list_;
  if (list == nullptr) return;
  (stream.before_ == nullptr ? list->first_ : stream.before_->after_) = stream.after_;
  (stream.after_ == nullptr ? list->last_ : stream.after_->before_) = stream.before_;
  stream.list_ = nullptr;
  stream.before_ = stream.after_ = nullptr;
}

Http2Session::Http2Session(Role role, User& user, std::initializer_list<Setting> settings, size_t connection_window)
    : user_(user), role_(role), phase_(role == Role::server ? Phase::preface : Phase::head) {
  if (role == Role::server) {
    left_ = kHttp2Preface.size();
  } else {
    control_ = kHttp2Preface;
  }
  char payload[8 * 6];
  char* out = payload;
  for (const auto& [id, value] : settings) {
    if (id == SettingsId::max_concurrent_streams) own_max_streams_ = value;
    if (id == SettingsId::initial_window_size) own_stream_window_ = value;
    TIDEGATE_ASSERT(out < payload + sizeof payload, "there are at most eight settings");
    *out++ = 0;
    *out++ = static_cast<char>(id);
    out = put_u32(out, value);
  }
  const auto bytes = static_cast<size_t>(out - payload);
  put_frame({static_cast<uint32_t>(bytes), FrameType::settings, 0, 0}, {payload, bytes});
  set_connection_window(connection_window);
}

// --- streams

Http2Stream* Http2Session::find(int32_t id) {
  if (found_ != nullptr && found_->id_ == id) return found_;
  for (Http2Stream* stream = bucket(id); stream != nullptr; stream = stream->same_bucket_) {
    if (stream->id_ == id) return found_ = stream;
  }
  return nullptr;
}

void Http2Session::add_to_table(Http2Stream& stream, int32_t id) {
  stream.id_ = id;
  stream.in_table_ = true;
  stream.send_window_ = peer_stream_window_;
  stream.receive_ = ReceiveWindow(own_stream_window_);
  stream.same_bucket_ = std::exchange(bucket(id), &stream);
  found_ = &stream;
  ++streams_;
}

void Http2Session::remove_from_table(Http2Stream& stream) {
  TIDEGATE_ASSERT(stream.in_table_, "a stream leaves the table once");
  Http2Stream** place = &bucket(stream.id_);
  while (*place != &stream) place = &(*place)->same_bucket_;
  *place = stream.same_bucket_;
  stream.in_table_ = false;
  Http2StreamList::remove(stream);
  if (found_ == &stream) found_ = nullptr;
  if (data_stream_ == &stream) data_stream_ = nullptr;
  if (block_.stream == &stream) block_.stream = nullptr;
  if (stream.request_sent_) --open_requests_;
  --streams_;
}

void Http2Session::close(Http2Stream& stream, Http2Error error) {
  remove_from_table(stream);
  user_.on_closed(stream, error);
}

void Http2Session::close_if_done(Http2Stream& stream) {
  if (stream.received_end_ && stream.sent_end_) close(stream, Http2Error::no_error);
}

bool Http2Session::open(Http2Stream& stream, std::string_view method, bool has_content) {
  TIDEGATE_ASSERT(role_ == Role::client && !stream.in_table_, "a client opens each stream once");
  if (next_id_ > INT32_MAX) return false;
  add_to_table(stream, static_cast<int32_t>(next_id_));
  next_id_ += 2;
  stream.rules_.expect_answer_to(method);
  stream.heads_ = 1;
  stream.head_ends_ = !has_content;
  stream.has_content_ = has_content;
  requests_.add(stream);
  return true;
}

void Http2Session::add_head(Http2Stream& stream, bool ends) {
  if (!stream.in_table_ || stream.resets_ || stream.sent_end_) return;
  TIDEGATE_ASSERT(!stream.head_ends_, "no head follows the last one");
  ++stream.heads_;
  stream.head_ends_ = ends;
  urgent_.add(stream);
}

void Http2Session::add_content(Http2Stream& stream) {
  stream.has_content_ = true;
  make_ready(stream);
}

void Http2Session::resume(Http2Stream& stream) { make_ready(stream); }

void Http2Session::make_ready(Http2Stream& stream) {
  const bool may_send = stream.in_table_ && stream.has_content_ && stream.heads_ == 0 && !stream.resets_;
  if (may_send && stream.list_ == nullptr) contents_.add(stream);
}

void Http2Session::reset(Http2Stream& stream, Http2Error error) {
  if (!stream.in_table_ || stream.resets_) return;
  stream.resets_ = true;
  stream.reset_error_ = error;
  urgent_.add(stream);
}

void Http2Session::leave(Http2Stream& stream) {
  if (!stream.in_table_) return;
  const bool known = stream.request_sent_;
  const Http2Error error = stream.resets_ ? stream.reset_error_ : Http2Error::cancel;
  remove_from_table(stream);
  if (known) put_reset(stream.id_, error);
}

// --- flow control

// An update is worth its frame when it gives half of the window (RFC 9113 §6.9.1 leaves it open).
void Http2Session::take(Http2Stream& stream, size_t bytes) {
  take_of_connection(bytes);
  if (!stream.in_table_) return;
  stream.receive_.take(bytes);
  const int64_t owed = stream.receive_.owed();
  if (owed <= 0 || owed < stream.receive_.size() / 2 || stream.received_end_ || stream.resets_) return;
  stream.receive_.give(owed);
  put_window_update(stream.id_, owed);
}

void Http2Session::take_of_connection(size_t bytes) {
  receive_.take(bytes);
  const int64_t owed = receive_.owed();
  if (owed <= 0 || owed < receive_.size() / 2) return;
  receive_.give(owed);
  put_window_update(0, owed);
}

// Growth is told at once: the peer waits for it.
void Http2Session::set_window(Http2Stream& stream, size_t bytes) {
  if (!stream.in_table_ || stream.resets_) return;
  const bool grows = static_cast<int64_t>(bytes) > stream.receive_.size();
  stream.receive_.set_size(static_cast<int64_t>(bytes));
  const int64_t owed = stream.receive_.owed();
  if (!grows || owed <= 0 || stream.received_end_) return;
  stream.receive_.give(owed);
  put_window_update(stream.id_, owed);
}

void Http2Session::set_connection_window(size_t bytes) {
  const bool grows = static_cast<int64_t>(bytes) > receive_.size();
  receive_.set_size(static_cast<int64_t>(bytes));
  const int64_t owed = receive_.owed();
  if (!grows || owed <= 0) return;
  receive_.give(owed);
  put_window_update(0, owed);
}

// --- the connection

void Http2Session::ping(std::string_view data) {
  TIDEGATE_ASSERT(data.size() == 8, "RFC 9113 §6.7");
  put_frame({8, FrameType::ping, 0, 0}, data);
}

void Http2Session::announce_goaway() { put_goaway(0x7fff'ffff, Http2Error::no_error); }

void Http2Session::goaway() {
  goaway_sent_ = true;
  put_goaway(last_opened_, Http2Error::no_error);
}

void Http2Session::end(Http2Error error) {
  if (ended_) return;
  ended_ = goaway_sent_ = true;
  put_goaway(last_opened_, error);
}

// RFC 9113 §5.4.1.
void Http2Session::fail(Http2Error error) {
  if (ended_) return;
  end(error);
  user_.on_connection_error(error);
}

}  // namespace tidegate::l7
