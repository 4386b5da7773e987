// SPDX-License-Identifier: Apache-2.0
// What a session receives: frames, in the order of RFC 9113 §6.
#include <algorithm>
#include <utility>

#include "core/assert.h"
#include "l7/h2/session.h"
#include "l7/limits.h"

namespace tidegate::l7 {

Http2Session::Stop Http2Session::receive(std::string_view input) {
  const auto take = [&input](size_t bytes) {
    const std::string_view taken = input.substr(0, bytes);
    input.remove_prefix(taken.size());
    return taken;
  };
  // Collects `bytes` bytes, also over several inputs. An empty result: they have not all come.
  const auto whole = [&](size_t bytes) -> std::string_view {
    if (partial_.empty() && input.size() >= bytes) return take(bytes);
    partial_.append(take(bytes - partial_.size()));
    return partial_.size() == bytes ? std::string_view(partial_) : std::string_view();
  };
  while (!ended_ && stop_ == Stop::none) {
    switch (phase_) {
      case Phase::preface: {
        const std::string_view part = take(left_);
        if (part != kHttp2Preface.substr(kHttp2Preface.size() - left_, part.size())) return Stop::bad_preface;
        left_ -= part.size();
        if (left_ > 0) return stop_;
        phase_ = Phase::head;
        break;
      }
      case Phase::head: {
        const std::string_view head = whole(kFrameHeadBytes);
        if (head.empty()) return stop_;
        frame_ = read_frame_head(head.data());
        partial_.clear();
        phase_ = Phase::payload;
        on_frame_head();
        break;
      }
      case Phase::payload: {
        const std::string_view payload = frame_.length == 0 ? std::string_view() : whole(frame_.length);
        if (payload.size() < frame_.length) return stop_;
        phase_ = Phase::head;
        on_payload(payload);
        if (!partial_.empty()) partial_ = std::string();
        break;
      }
      case Phase::data:
        if (input.empty() && left_ > 0) return stop_;
        on_data_bytes(take(left_));
        break;
      case Phase::skip:
        left_ -= take(left_).size();
        if (left_ > 0) return stop_;
        phase_ = Phase::head;
        break;
    }
  }
  return stop_;
}

bool Http2Session::is_idle(int32_t id) const {
  if (role_ == Role::server) return id % 2 == 0 || id > last_received_;
  return id % 2 == 0 || id > last_sent_;
}

void Http2Session::skip_payload() {
  left_ = frame_.length;
  phase_ = Phase::skip;
}

void Http2Session::malformed(Http2Stream& stream, bool whole) {
  user_.on_malformed(stream, whole);
  reset(stream, Http2Error::protocol_error);
}

// What can be judged before the payload has come.
void Http2Session::on_frame_head() {
  if (frame_.length > kMostPayloadBytes) return fail(Http2Error::frame_size_error);  // §4.2
  if (!first_settings_seen_) {                                                       // §3.4
    if (frame_.type != FrameType::settings || frame_.has(FrameFlags::ack)) return fail(Http2Error::protocol_error);
    first_settings_seen_ = true;
  }
  const bool continues = frame_.type == FrameType::continuation;
  if ((block_.id != 0) != continues || (continues && block_.id != frame_.stream)) {  // §6.10
    return fail(Http2Error::protocol_error);
  }
  switch (frame_.type) {
    case FrameType::data:
      return begin_data();
    case FrameType::headers:
      return begin_headers();
    case FrameType::push_promise:  // §8.4: never allowed here
      return fail(Http2Error::protocol_error);
    case FrameType::continuation:
      if (++block_.continuations > kHttp2Continuations) stop_ = Stop::flood;
      return;
    case FrameType::priority:
    case FrameType::rst_stream:
    case FrameType::settings:
    case FrameType::ping:
    case FrameType::goaway:
    case FrameType::window_update:
      return;
    default:
      return skip_payload();  // §4.1: unknown types are ignored
  }
}

void Http2Session::on_payload(std::string_view payload) {
  switch (frame_.type) {
    case FrameType::headers:
      on_headers(payload);
      break;
    case FrameType::continuation:
      on_block_part(payload, frame_.has(FrameFlags::end_headers));
      break;
    case FrameType::priority:
      on_priority(payload);
      break;
    case FrameType::rst_stream:
      on_rst_stream(payload);
      break;
    case FrameType::settings:
      on_settings(payload);
      break;
    case FrameType::ping:
      on_ping(payload);
      break;
    case FrameType::goaway:
      on_goaway(payload);
      break;
    case FrameType::window_update:
      on_window_update(payload);
      break;
    default:
      break;
  }
}

// --- DATA (§6.1)

void Http2Session::begin_data() {
  if (frame_.stream == 0 || is_idle(frame_.stream)) return fail(Http2Error::protocol_error);
  Http2Stream* const stream = find(frame_.stream);
  if (stream != nullptr && stream->received_end_) return fail(Http2Error::stream_closed);  // §5.1
  const bool drops = stream == nullptr || stream->resets_;
  if (!drops && role_ == Role::client && !stream->head_received_) return fail(Http2Error::protocol_error);
  data_stream_ = drops ? nullptr : stream;
  left_ = frame_.length;
  padding_ = 0;
  padding_known_ = !frame_.has(FrameFlags::padded);
  if (!padding_known_ && left_ == 0) return fail(Http2Error::protocol_error);
  phase_ = Phase::data;
}

void Http2Session::on_data_bytes(std::string_view bytes) {
  const size_t all = bytes.size();
  if (all > 0 && !receive_.receive(all)) return fail(Http2Error::flow_control_error);  // §6.9
  if (data_stream_ != nullptr && !data_stream_->receive_.receive(all)) {
    reset(*data_stream_, Http2Error::flow_control_error);
    data_stream_ = nullptr;
  }
  left_ -= all;
  if (!padding_known_) {
    padding_ = static_cast<uint8_t>(bytes.front());
    padding_known_ = true;
    if (padding_ > left_ + all - 1) return fail(Http2Error::protocol_error);
    bytes.remove_prefix(1);
  }
  const size_t content_left = left_ - std::min(left_, padding_);  // of what has not come yet
  const size_t padding_here = content_left > 0 ? 0 : std::min(bytes.size(), padding_ - left_);
  bytes.remove_suffix(padding_here);
  const size_t overhead = all - bytes.size();
  if (data_stream_ == nullptr) {
    if (all > 0) take_of_connection(all);  // nobody needs it, but it counts against the window
  } else {
    if (overhead > 0) take(*data_stream_, overhead);
    if (!bytes.empty()) take_data(bytes);
  }
  if (left_ > 0) return;
  phase_ = Phase::head;
  end_data();
}

void Http2Session::take_data(std::string_view bytes) {
  Http2Stream& stream = *data_stream_;
  if (stream.rules_.take_content(bytes.size())) return user_.on_data(stream, bytes);
  take_of_connection(bytes.size());
  reset(stream, Http2Error::protocol_error);
  data_stream_ = nullptr;
}

void Http2Session::end_data() {
  Http2Stream* const stream = std::exchange(data_stream_, nullptr);
  if (stream == nullptr || !frame_.has(FrameFlags::end_stream)) return;
  stream->received_end_ = true;
  if (!stream->rules_.end_stream()) return reset(*stream, Http2Error::protocol_error);
  user_.on_content_end(*stream);
  close_if_done(*stream);
}

// --- HEADERS and CONTINUATION (§6.2, §6.10)

// The stream opens when the head of the frame has come, so that a slow head is seen.
void Http2Session::begin_headers() {
  if (frame_.stream == 0) return fail(Http2Error::protocol_error);
  Http2Stream* stream = find(frame_.stream);
  if (role_ == Role::client && is_idle(frame_.stream)) return fail(Http2Error::protocol_error);
  block_ = {};
  block_.id = frame_.stream;
  block_.ends_stream = frame_.has(FrameFlags::end_stream);
  if (stream != nullptr) {
    if (stream->received_end_) return fail(Http2Error::stream_closed);  // §5.1
    block_.trailers = stream->head_received_ && !stream->rules_.expects_final();
    block_.stream = stream->resets_ ? nullptr : stream;
  } else if (role_ == Role::server) {
    block_.stream = admit_request(frame_.stream);
  }
}

// Null: its fields are dropped.
Http2Stream* Http2Session::admit_request(int32_t id) {
  if (is_own(id)) {
    fail(Http2Error::protocol_error);
    return nullptr;
  }
  if (id <= last_received_) return nullptr;  // it is closed
  last_received_ = id;
  if (goaway_sent_) return nullptr;
  if (streams_ >= own_max_streams_) {  // §5.1.2; a client may not know the limit yet
    if (settings_acknowledged_) {
      fail(Http2Error::protocol_error);
    } else {
      put_reset(id, Http2Error::refused_stream);
    }
    return nullptr;
  }
  last_opened_ = id;
  Http2Stream& stream = user_.open_stream(id);
  add_to_table(stream, id);
  return &stream;
}

void Http2Session::on_headers(std::string_view payload) {
  size_t padding = 0;
  if (frame_.has(FrameFlags::padded)) {
    if (payload.empty()) return fail(Http2Error::frame_size_error);
    padding = static_cast<uint8_t>(payload.front());
    payload.remove_prefix(1);
  }
  if (frame_.has(FrameFlags::priority)) {
    if (payload.size() < 5) return fail(Http2Error::frame_size_error);
    const bool on_itself = (read_u32(payload.data()) & 0x7fff'ffff) == static_cast<uint32_t>(frame_.stream);
    if (on_itself) return fail(Http2Error::protocol_error);  // RFC 7540 §5.3.1
    payload.remove_prefix(5);
  }
  if (padding > payload.size()) return fail(Http2Error::protocol_error);
  payload.remove_suffix(padding);
  decoder_.begin_block();
  on_block_part(payload, frame_.has(FrameFlags::end_headers));
}

void Http2Session::on_block_part(std::string_view part, bool last) {
  std::string_view input = part;
  const bool joined = !block_rest_.empty();
  if (joined) input = block_rest_.append(part);
  decoder_.set_input(input, last);
  HpackScratch scratch;
  Http2Field field;
  for (;;) {
    const HpackDecoder::Step step = decoder_.next(field, scratch);
    if (step == HpackDecoder::Step::failed) return fail(Http2Error::compression_error);
    if (step != HpackDecoder::Step::field) break;
    if (block_.stream != nullptr && !take_field(field)) {
      stop_ = Stop::header_bytes;
      return;
    }
  }
  if (last) {
    if (joined) block_rest_ = std::string();
    return end_block();
  }
  if (joined) {
    block_rest_.erase(0, decoder_.taken());
  } else {
    block_rest_ = input.substr(decoder_.taken());
  }
}

bool Http2Session::take_field(const Http2Field& field) {
  Http2Stream& stream = *block_.stream;
  const FieldVerdict verdict = role_ == Role::server ? stream.rules_.judge_of_request(field, block_.trailers)
                                                     : stream.rules_.judge_of_response(field, block_.trailers);
  if (verdict == FieldVerdict::malformed) {
    block_.stream = nullptr;
    malformed(stream, false);
    return true;
  }
  if (verdict == FieldVerdict::dropped) return true;
  block_.bytes += field.name.size() + field.value.size() + 32;
  return verdict == FieldVerdict::bad ? user_.on_bad_field(stream) : user_.on_field(stream, field);
}

void Http2Session::end_block() {
  block_.id = 0;
  Http2Stream* const stream = std::exchange(block_.stream, nullptr);
  if (stream == nullptr) return;
  bool right;
  if (block_.trailers) {
    right = block_.ends_stream;  // §8.1
  } else {
    right = role_ == Role::server ? stream->rules_.end_request_head() : stream->rules_.end_response_head();
    stream->head_received_ = true;
  }
  if (block_.ends_stream) {
    stream->received_end_ = true;
    right = right && stream->rules_.end_stream();
  }
  if (!right) return malformed(*stream, true);
  user_.on_head(*stream, block_.ends_stream);
  close_if_done(*stream);
}

// --- the other frames

// §6.3. Nothing follows priorities.
void Http2Session::on_priority(std::string_view payload) {
  if (payload.size() != 5) return fail(Http2Error::frame_size_error);
  if (frame_.stream == 0) return fail(Http2Error::protocol_error);
  const bool on_itself = (read_u32(payload.data()) & 0x7fff'ffff) == static_cast<uint32_t>(frame_.stream);
  if (on_itself) fail(Http2Error::protocol_error);  // RFC 7540 §5.3.1
}

// §6.4.
void Http2Session::on_rst_stream(std::string_view payload) {
  if (payload.size() != 4) return fail(Http2Error::frame_size_error);
  if (frame_.stream == 0 || is_idle(frame_.stream)) return fail(Http2Error::protocol_error);
  Http2Stream* const stream = find(frame_.stream);
  user_.on_reset_received();
  if (stream != nullptr) close(*stream, static_cast<Http2Error>(read_u32(payload.data())));
}

// §6.5.
void Http2Session::on_settings(std::string_view payload) {
  constexpr size_t kSettingBytes = 6;
  if (frame_.stream != 0) return fail(Http2Error::protocol_error);
  if (payload.size() % kSettingBytes != 0) return fail(Http2Error::frame_size_error);
  if (frame_.has(FrameFlags::ack)) {
    if (!payload.empty()) return fail(Http2Error::frame_size_error);
    if (settings_acknowledged_) return fail(Http2Error::protocol_error);  // of what was never sent
    settings_acknowledged_ = true;
    return;
  }
  if (payload.size() > kHttp2Settings * kSettingBytes) return fail(Http2Error::enhance_your_calm);
  for (; !payload.empty(); payload.remove_prefix(kSettingBytes)) {
    const auto id = static_cast<SettingsId>(read_u32(payload.data()) >> 16);
    if (!take_setting(id, read_u32(payload.data() + 2))) return;
  }
  if (peer_priorities_ < 0) peer_priorities_ = 0;  // RFC 9218 §2.1: only the first SETTINGS may say something else
  put_acknowledgement(FrameType::settings, {});
  user_.on_settings();
}

// §6.5.2. False: the connection has ended.
bool Http2Session::take_setting(SettingsId id, uint32_t value) {
  const bool is_flag = value <= 1;
  switch (id) {
    case SettingsId::header_table_size:
      encoder_.limit_table(value);
      break;
    case SettingsId::enable_push:  // a server must not send 1
      if (!is_flag || (role_ == Role::client && value == 1)) fail(Http2Error::protocol_error);
      break;
    case SettingsId::max_concurrent_streams:
      peer_max_streams_ = value;
      break;
    case SettingsId::initial_window_size:
      set_peer_window(value);
      break;
    case SettingsId::max_frame_size:  // ours are never longer than every peer takes
      if (value < kMostPayloadBytes || value > 0xff'ffff) fail(Http2Error::protocol_error);
      break;
    case SettingsId::enable_connect_protocol:  // RFC 8441 §3
      if (!is_flag || (peer_allows_connect_ && value == 0)) {
        fail(Http2Error::protocol_error);
      } else {
        peer_allows_connect_ = value == 1;
      }
      break;
    case SettingsId::no_rfc7540_priorities:  // RFC 9218 §2.1
      if (!is_flag || (peer_priorities_ >= 0 && peer_priorities_ != static_cast<int>(value))) {
        fail(Http2Error::protocol_error);
      }
      peer_priorities_ = static_cast<int>(value);
      break;
    default:
      break;
  }
  return !ended_;
}

// §6.9.2: the windows of all streams change by as much, and may become negative.
void Http2Session::set_peer_window(uint32_t bytes) {
  if (bytes > kHttp2MostWindow) return fail(Http2Error::flow_control_error);
  const int64_t more = int64_t{bytes} - std::exchange(peer_stream_window_, bytes);
  for (Http2Stream* first : buckets_) {
    for (Http2Stream* stream = first; stream != nullptr; stream = stream->same_bucket_) {
      stream->send_window_ += more;
      if (stream->send_window_ > kHttp2MostWindow) return fail(Http2Error::flow_control_error);
      if (more > 0) make_ready(*stream);
    }
  }
}

// §6.7.
void Http2Session::on_ping(std::string_view payload) {
  if (payload.size() != 8) return fail(Http2Error::frame_size_error);
  if (frame_.stream != 0) return fail(Http2Error::protocol_error);
  if (frame_.has(FrameFlags::ack)) return user_.on_pong(payload);
  put_acknowledgement(FrameType::ping, payload);
}

// §6.8.
void Http2Session::on_goaway(std::string_view payload) {
  if (payload.size() < 8) return fail(Http2Error::frame_size_error);
  if (frame_.stream != 0) return fail(Http2Error::protocol_error);
  const auto last = static_cast<int32_t>(read_u32(payload.data()) & 0x7fff'ffff);
  if ((last > 0 && !is_own(last)) || last > goaway_last_) return fail(Http2Error::protocol_error);
  goaway_received_ = true;
  goaway_last_ = last;
  user_.on_goaway(last);
  if (role_ == Role::server) return;
  for (Http2Stream*& first : buckets_) {
    for (Http2Stream* stream = first; stream != nullptr;) {
      Http2Stream* const next = stream->same_bucket_;
      if (stream->id_ > last || !stream->request_sent_) close(*stream, Http2Error::refused_stream);
      stream = next;
    }
  }
}

// §6.9.
void Http2Session::on_window_update(std::string_view payload) {
  if (payload.size() != 4) return fail(Http2Error::frame_size_error);
  const int64_t more = read_u32(payload.data()) & 0x7fff'ffff;
  if (frame_.stream == 0) {
    if (more == 0) return fail(Http2Error::protocol_error);
    send_window_ += more;
    if (send_window_ > kHttp2MostWindow) fail(Http2Error::flow_control_error);
    return;
  }
  if (is_idle(frame_.stream)) return fail(Http2Error::protocol_error);
  Http2Stream* const stream = find(frame_.stream);
  if (stream == nullptr || stream->resets_) return;
  if (more == 0) return fail(Http2Error::protocol_error);
  if (stream->send_window_ + more > kHttp2MostWindow) return reset(*stream, Http2Error::flow_control_error);
  stream->send_window_ += more;
  make_ready(*stream);
}

}  // namespace tidegate::l7
