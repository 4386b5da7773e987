// SPDX-License-Identifier: Apache-2.0
// What a session sends, and in which order.
#include <algorithm>

#include "core/assert.h"
#include "l7/h2/session.h"
#include "l7/limits.h"

namespace tidegate::l7 {
namespace {

constexpr size_t kKeptControlBytes = 1024;

}  // namespace

void Http2Session::put_frame(const FrameHead& head, std::string_view payload) {
  char bytes[kFrameHeadBytes];
  put_frame_head(bytes, head);
  control_.append(bytes, sizeof bytes);
  control_.append(payload);
}

void Http2Session::put_reset(int32_t id, Http2Error error) {
  char payload[4];
  put_u32(payload, static_cast<uint32_t>(error));
  put_frame({sizeof payload, FrameType::rst_stream, 0, id}, {payload, sizeof payload});
}

void Http2Session::put_window_update(int32_t id, int64_t bytes) {
  TIDEGATE_ASSERT(bytes > 0 && bytes <= kHttp2MostWindow, "RFC 9113 §6.9");
  char payload[4];
  put_u32(payload, static_cast<uint32_t>(bytes));
  put_frame({sizeof payload, FrameType::window_update, 0, id}, {payload, sizeof payload});
}

void Http2Session::put_goaway(int32_t last, Http2Error error) {
  char payload[8];
  put_u32(put_u32(payload, static_cast<uint32_t>(last)), static_cast<uint32_t>(error));
  put_frame({sizeof payload, FrameType::goaway, 0, 0}, {payload, sizeof payload});
}

// A peer that does not read must not make us hold acknowledgements without end (CVE-2019-9512, CVE-2019-9515).
void Http2Session::put_acknowledgement(FrameType type, std::string_view payload) {
  if (++unsent_acknowledgements_ > kHttp2UnsentAcknowledgements) {
    stop_ = Stop::flood;
    return;
  }
  put_frame({static_cast<uint32_t>(payload.size()), type, FrameFlags::ack, 0}, payload);
}

bool Http2Session::wants_to_send() const {
  if (!control_.empty()) return true;
  if (ended_) return false;
  if (!urgent_.empty()) return true;
  if (!requests_.empty() && open_requests_ < peer_max_streams_) return true;
  return !contents_.empty() && send_window_ > 0;
}

void Http2Session::send(ProxyTransport& transport, size_t most) {
  while (transport.waiting_bytes() < most) {
    if (!control_.empty()) {
      transport.queue(control_);
      control_.clear();
      if (control_.capacity() > kKeptControlBytes) control_.shrink_to_fit();
      unsent_acknowledgements_ = 0;
    } else if (ended_) {
      return;
    } else if (Http2Stream* const urgent = urgent_.first()) {
      send_urgent(*urgent, transport);
    } else if (!requests_.empty() && open_requests_ < peer_max_streams_) {
      Http2Stream& request = *requests_.first();
      request.request_sent_ = true;
      TIDEGATE_ASSERT(request.id_ > last_sent_, "requests are sent in the order of their ids");
      last_sent_ = request.id_;
      ++open_requests_;
      send_head(request, transport);
    } else if (!contents_.empty() && send_window_ > 0) {
      send_content(transport);
    } else {
      return;
    }
  }
}

void Http2Session::send_urgent(Http2Stream& stream, ProxyTransport& transport) {
  if (!stream.resets_) return send_head(stream, transport);
  const Http2Error error = stream.reset_error_;
  char frame[kFrameHeadBytes + 4];
  put_u32(put_frame_head(frame, {4, FrameType::rst_stream, 0, stream.id_}), static_cast<uint32_t>(error));
  transport.queue({frame, sizeof frame});
  user_.on_reset_sent(stream, error);
  close(stream, error);
}

void Http2Session::send_head(Http2Stream& stream, ProxyTransport& transport) {
  TIDEGATE_ASSERT(stream.heads_ > 0, "a stream waits here for its heads");
  const bool ends = --stream.heads_ == 0 && stream.head_ends_;
  if (stream.heads_ == 0) Http2StreamList::remove(stream);
  user_.write_head(stream, ends, transport);
  if (ends) {
    stream.sent_end_ = true;
    close_if_done(stream);
  } else {
    make_ready(stream);
  }
}

// One frame of the first stream, which then goes to the end. A stream without content, or with a closed window, waits
// for resume() or WINDOW_UPDATE.
void Http2Session::send_content(ProxyTransport& transport) {
  Http2Stream& stream = *contents_.first();
  Http2StreamList::remove(stream);
  const Http2Content content = user_.content_of(stream);
  const int64_t window = std::max<int64_t>(std::min(stream.send_window_, send_window_), 0);
  const size_t bytes = std::min({content.bytes, static_cast<size_t>(window), kMostPayloadBytes});
  if (bytes == 0 && (content.bytes > 0 || !content.whole)) return;
  const bool all = content.whole && bytes == content.bytes;
  const bool ends = all && !content.trailers;
  if (all) stream.has_content_ = false;
  if (bytes > 0 || ends) {
    stream.send_window_ -= static_cast<int64_t>(bytes);
    send_window_ -= static_cast<int64_t>(bytes);
    char head[kFrameHeadBytes];
    const uint8_t flags = ends ? FrameFlags::end_stream : uint8_t{0};
    put_frame_head(head, {static_cast<uint32_t>(bytes), FrameType::data, flags, stream.id_});
    transport.queue({head, sizeof head});
    user_.write_content(stream, bytes, ends, transport);
  }
  if (ends) {
    stream.sent_end_ = true;
    close_if_done(stream);
  } else if (all) {
    add_head(stream, true);  // trailers
  } else if (bytes < content.bytes) {
    make_ready(stream);
  }
}

}  // namespace tidegate::l7
