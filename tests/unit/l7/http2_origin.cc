// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/l7/http2_origin.h"

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>

namespace tidegate::l7::test {

struct Http2Origin::Connection {
  Http2Origin& origin;
  size_t number;
  nghttp2_session* session = nullptr;
  std::map<int32_t, Stream> streams;
  bool close = false;

  void answer(int32_t id);
  static ssize_t read(nghttp2_session* session, int32_t id, uint8_t* buffer, size_t bytes, uint32_t* flags,
                      nghttp2_data_source*, void* self);
};

Http2Origin::Http2Origin(Handler handler, uint32_t max_streams, bool tunnels)
    : handler_(std::move(handler)), max_streams_(max_streams), tunnels_(tunnels) {
  sockaddr_storage address{};
  socklen_t length = Endpoint::parse("127.0.0.1:0")->to_sockaddr(address);
  listen_ = UniqueFd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  EXPECT_EQ(0, ::bind(listen_.get(), reinterpret_cast<sockaddr*>(&address), length));
  EXPECT_EQ(0, ::listen(listen_.get(), 128));
  ::getsockname(listen_.get(), reinterpret_cast<sockaddr*>(&address), &length);
  endpoint_ = Endpoint::from(address);
  acceptor_ = std::thread([this] { run(); });
}

Http2Origin::~Http2Origin() {
  ::shutdown(listen_.get(), SHUT_RDWR);
  acceptor_.join();
  {
    const std::lock_guard lock(mutex_);
    for (const int fd : open_) ::shutdown(fd, SHUT_RDWR);
  }
  for (std::thread& thread : threads_) thread.join();
}

void Http2Origin::run() {
  for (;;) {
    const int fd = ::accept4(listen_.get(), nullptr, nullptr, SOCK_CLOEXEC);
    if (fd < 0) return;
    const std::lock_guard lock(mutex_);
    open_.push_back(fd);
    const size_t number = ++connections_;
    threads_.emplace_back([this, fd, number] { serve(fd, number); });
  }
}

void Http2Origin::serve(int fd, size_t number) {
  const UniqueFd owner(fd);
  const int one = 1;
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  Connection connection{.origin = *this, .number = number, .streams = {}};
  nghttp2_option* options = nullptr;
  nghttp2_option_new(&options);
  nghttp2_option_set_max_send_header_block_length(options, 1 << 20);
  nghttp2_session_server_new2(&connection.session, callbacks(), &connection, options);
  nghttp2_option_del(options);
  const std::array<nghttp2_settings_entry, 2> settings{{
      {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, max_streams_},
      {NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL, 1},
  }};
  nghttp2_submit_settings(connection.session, NGHTTP2_FLAG_NONE, settings.data(), tunnels_ ? 2 : 1);
  const auto send_all = [&] {
    const uint8_t* data = nullptr;
    for (ssize_t bytes; (bytes = nghttp2_session_mem_send(connection.session, &data)) > 0;) {
      for (ssize_t at = 0; at < bytes;) {
        const ssize_t sent = ::send(fd, data + at, static_cast<size_t>(bytes - at), MSG_NOSIGNAL);
        if (sent <= 0) return false;
        at += sent;
      }
    }
    return true;
  };
  char chunk[65536];
  while (send_all() && !connection.close) {
    const ssize_t got = ::recv(fd, chunk, sizeof chunk, 0);
    if (got <= 0) break;
    const auto* bytes = reinterpret_cast<const uint8_t*>(chunk);
    if (nghttp2_session_mem_recv(connection.session, bytes, static_cast<size_t>(got)) < 0) break;
  }
  for (const auto& [id, stream] : connection.streams) open_streams_ -= stream.answer.silent ? 1 : 0;
  nghttp2_session_del(connection.session);
  const std::lock_guard lock(mutex_);
  std::erase(open_, fd);
}

void Http2Origin::Connection::answer(int32_t id) {
  Stream& stream = streams[id];
  stream.answered = true;
  ++origin.requests_;
  stream.request.connection = number;
  stream.request.stream = id;
  stream.answer = origin.handler_(stream.request);
  const Answer& answer = stream.answer;
  if (answer.goaway_at != 0) {
    nghttp2_submit_goaway(session, NGHTTP2_FLAG_NONE, answer.goaway_at, NGHTTP2_NO_ERROR, nullptr, 0);
  }
  close = close || answer.close;
  if (answer.silent) {
    const size_t now = ++origin.open_streams_;
    origin.most_open_streams_ = std::max<size_t>(origin.most_open_streams_, now);
    if (answer.reset) nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, id, *answer.reset);
    return;
  }
  for (const Http2Fields& interim : answer.interim) {
    const std::vector<nghttp2_nv> pairs = pairs_of(interim);
    nghttp2_submit_headers(session, NGHTTP2_FLAG_NONE, id, nullptr, pairs.data(), pairs.size(), nullptr);
  }
  nghttp2_data_provider provider{};
  provider.read_callback = &read;
  const std::vector<nghttp2_nv> pairs = pairs_of(answer.fields);
  const bool has_body = !answer.body.empty() || !answer.trailers.empty() || answer.cut || answer.reset || answer.echo;
  nghttp2_submit_response(session, id, pairs.data(), pairs.size(), has_body ? &provider : nullptr);
}

ssize_t Http2Origin::Connection::read(nghttp2_session* session, int32_t id, uint8_t* buffer, size_t bytes,
                                      uint32_t* flags, nghttp2_data_source*, void* self) {
  Stream& stream = static_cast<Connection*>(self)->streams[id];
  const Answer& answer = stream.answer;
  const auto window = static_cast<size_t>(std::max(0, nghttp2_session_get_stream_remote_window_size(session, id)));
  std::atomic<size_t>& widest = static_cast<Connection*>(self)->origin.widest_window_;
  widest = std::max<size_t>(widest, window);
  const size_t now = answer.body.copy(reinterpret_cast<char*>(buffer), bytes, stream.sent);
  stream.sent += now;
  if (stream.sent < answer.body.size()) return static_cast<ssize_t>(now);
  if (answer.echo && !stream.tunnel_ended) return now == 0 ? ssize_t{NGHTTP2_ERR_DEFERRED} : static_cast<ssize_t>(now);
  if (answer.reset) {
    if (now == 0) nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, id, *answer.reset);
    return now == 0 ? ssize_t{NGHTTP2_ERR_DEFERRED} : static_cast<ssize_t>(now);
  }
  if (answer.cut) return now == 0 ? ssize_t{NGHTTP2_ERR_DEFERRED} : static_cast<ssize_t>(now);
  *flags |= NGHTTP2_DATA_FLAG_EOF;
  if (!answer.trailers.empty()) {
    *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
    const std::vector<nghttp2_nv> pairs = pairs_of(answer.trailers);
    nghttp2_submit_trailer(session, id, pairs.data(), pairs.size());
  }
  return static_cast<ssize_t>(now);
}

nghttp2_session_callbacks* Http2Origin::callbacks() {
  static nghttp2_session_callbacks* const made = [] {
    nghttp2_session_callbacks* c = nullptr;
    nghttp2_session_callbacks_new(&c);
    nghttp2_session_callbacks_set_on_header_callback(
        c, [](nghttp2_session*, const nghttp2_frame* frame, const uint8_t* name, size_t name_bytes,
              const uint8_t* value, size_t value_bytes, uint8_t, void* self) {
          Stream& stream = static_cast<Connection*>(self)->streams[frame->hd.stream_id];
          (stream.head_ended ? stream.request.trailers : stream.request.fields)[std::string(name, name + name_bytes)] =
              std::string(value, value + value_bytes);
          return 0;
        });
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(
        c, [](nghttp2_session* session, uint8_t, int32_t id, const uint8_t* data, size_t bytes, void* self) {
          Stream& stream = static_cast<Connection*>(self)->streams[id];
          std::string& to = stream.answer.echo ? stream.answer.body : stream.request.body;
          to.append(reinterpret_cast<const char*>(data), bytes);
          if (stream.answer.echo) nghttp2_session_resume_data(session, id);
          return 0;
        });
    nghttp2_session_callbacks_set_on_frame_recv_callback(
        c, [](nghttp2_session* session, const nghttp2_frame* frame, void* self) {
          auto& connection = *static_cast<Connection*>(self);
          if (frame->hd.type == NGHTTP2_RST_STREAM) ++connection.origin.resets_;
          if (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA) return 0;
          Stream& stream = connection.streams[frame->hd.stream_id];
          stream.head_ended = true;
          if (frame->hd.type == NGHTTP2_DATA) ++stream.request.data_frames;
          const bool ended = (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;
          if (!stream.answered && (ended || stream.request.fields.count(":protocol") == 1)) {
            connection.answer(frame->hd.stream_id);
          } else if (ended && stream.answer.echo) {
            stream.tunnel_ended = true;
            stream.answer.body += stream.answer.farewell;
            nghttp2_session_resume_data(session, frame->hd.stream_id);
          }
          return 0;
        });
    nghttp2_session_callbacks_set_on_stream_close_callback(c, [](nghttp2_session*, int32_t id, uint32_t, void* self) {
      auto& connection = *static_cast<Connection*>(self);
      connection.origin.open_streams_ -= connection.streams[id].answer.silent ? 1 : 0;
      connection.streams.erase(id);
      return 0;
    });
    return c;
  }();
  return made;
}

}  // namespace tidegate::l7::test
