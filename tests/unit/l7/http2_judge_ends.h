// SPDX-License-Identifier: Apache-2.0
// The two ends that http2_judge.cc compares: Http2Session with a user of its own, and nghttp2's session. Each notes
// what it says of the frames that it gets, and what it sends.
#pragma once

#include <nghttp2/nghttp2.h>
#include <sys/socket.h>

#include <algorithm>
#include <initializer_list>
#include <iterator>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/event_loop.h"
#include "l7/h2/headers_frame.h"
#include "l7/h2/session.h"
#include "l7/limits.h"

namespace tidegate::l7::http2_judge {

using Role = Http2Session::Role;
using Stop = Http2Session::Stop;

// What one end says of the frames of one step.
struct Verdict {
  bool ended = false;                   // the connection
  uint32_t code = 0;                    // of GOAWAY, if it has ended
  bool without_code = false;            // it has ended, and GOAWAY is not the session's
  std::map<int32_t, std::string> told;  // by stream: heads, content, ends
  std::map<int32_t, uint32_t> resets;   // sent
  std::string answers;                  // acknowledgements
};

inline std::string words_of(const Verdict& verdict) {
  std::string out;
  if (verdict.ended) {
    out += verdict.without_code ? "stop " : std::string("GOAWAY:") + name(static_cast<Http2Error>(verdict.code)) + ' ';
  }
  for (const auto& [id, code] : verdict.resets) {
    out += "RST:" + std::to_string(id) + ':' + name(static_cast<Http2Error>(code)) + ' ';
  }
  for (const auto& [id, words] : verdict.told) out += std::to_string(id) + '{' + words + "} ";
  return out + verdict.answers;
}

// What a frame leaves of the windows that an end has given.
struct Credit {
  int64_t connection = kHttp2FirstWindow;
  std::map<int32_t, int64_t> streams;
};

// Reads what an end sends.
class SentReader {
 public:
  explicit SentReader(bool preface) : skip_(preface ? kHttp2Preface.size() : 0) {}
  void read(std::string_view bytes, Verdict& verdict, Credit& credit) {
    held_ += bytes;
    const size_t skipped = std::min(skip_, held_.size());
    held_.erase(0, skipped);
    skip_ -= skipped;
    size_t at = 0;
    for (; held_.size() - at >= kFrameHeadBytes;) {
      const FrameHead head = read_frame_head(held_.data() + at);
      if (held_.size() - at < kFrameHeadBytes + head.length) break;
      const std::string_view payload(held_.data() + at + kFrameHeadBytes, head.length);
      at += kFrameHeadBytes + head.length;
      on_frame(head, payload, verdict, credit);
    }
    held_.erase(0, at);
  }

 private:
  static void on_frame(const FrameHead& head, std::string_view payload, Verdict& verdict, Credit& credit) {
    switch (head.type) {
      case FrameType::rst_stream:
        verdict.resets[head.stream] = read_u32(payload.data());
        break;
      case FrameType::goaway:
        if (read_u32(payload.data() + 4) != 0) {
          verdict.ended = true;
          verdict.code = read_u32(payload.data() + 4);
        }
        break;
      case FrameType::settings:
        if (head.has(FrameFlags::ack)) verdict.answers += "settings-ack ";
        break;
      case FrameType::ping:
        verdict.answers += "ping-ack:" + std::string(payload) + ' ';
        break;
      case FrameType::window_update:
        if (head.stream == 0) {
          credit.connection += read_u32(payload.data());
        } else {
          credit.streams[head.stream] += read_u32(payload.data());
        }
        break;
      default:
        break;
    }
  }

  std::string held_;
  size_t skip_;
};

inline void add_field(std::string& block, std::string_view name, std::string_view value) {
  if (!block.empty() && block.back() != ';' && block.back() != '{') block += ';';
  block.append(name).append("=").append(value).append(";");
}

inline std::string end_of(std::string& fields, bool ends) {
  return "head{" + std::exchange(fields, {}) + (ends ? "}. " : "} ");
}

// What the judge tells an end to do.
class End {
 public:
  virtual ~End() = default;
  virtual void receive(std::string_view bytes) = 0;
  virtual bool has(int32_t id) = 0;
  virtual int64_t send_window(int32_t id) = 0;  // 0: of the connection
  virtual void request(int32_t id, std::string_view method, bool has_content) = 0;
  virtual void end_request(int32_t id) = 0;
  virtual void answer(int32_t id, bool ends) = 0;
  virtual void reset(int32_t id, Http2Error error) = 0;
  virtual void take(int32_t id) = 0;  // all content that was received
  virtual void goaway() = 0;
  virtual void send() = 0;
  virtual bool over() = 0;

  Verdict verdict;
  Credit credit;

 protected:
  std::map<int32_t, std::string> fields_;  // of the head that is being received
  std::map<int32_t, size_t> held_;         // content that was not taken
};

class OurStream final : public Http2Stream {
 public:
  bool whole = false;
};

class OurEnd final : public End, private Http2Session::User, private IoHandler {
 public:
  OurEnd(Role role, std::initializer_list<Http2Session::Setting> settings, size_t window)
      : transport_(loop(), blocks()), sent_(role == Role::client), session_(role, *this, settings, window) {
    int fds[2];
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) != 0) std::abort();
    if (!transport_.open(UniqueFd(fds[0]), this)) std::abort();
    peer_ = UniqueFd(fds[1]);
  }
  ~OurEnd() override {
    for (const auto& each : streams_) session_.forget(*each.second);
  }
  void receive(std::string_view bytes) override {
    // Memory of its own, so that a sanitizer sees what is read beyond it.
    const std::vector<char> input(bytes.begin(), bytes.end());
    if (session_.receive({input.data(), input.size()}) != Stop::none) verdict.ended = verdict.without_code = true;
  }
  bool has(int32_t id) override { return open_.count(id) > 0; }
  int64_t send_window(int32_t id) override { return id == 0 ? session_.send_window() : streams_[id]->send_window(); }
  void request(int32_t id, std::string_view method, bool has_content) override {
    auto made = std::make_unique<OurStream>();
    OurStream& stream = *made;
    if (!session_.open(stream, method, has_content) || stream.id() != id) std::abort();
    streams_[id] = std::move(made);
    open_[id] = true;
  }
  void end_request(int32_t id) override {
    streams_[id]->whole = true;
    session_.resume(*streams_[id]);
  }
  void answer(int32_t id, bool ends) override { session_.add_head(*streams_[id], ends); }
  void reset(int32_t id, Http2Error error) override { session_.reset(*streams_[id], error); }
  void take(int32_t id) override {
    const size_t bytes = std::exchange(held_[id], 0);
    if (bytes > 0) session_.take(*streams_[id], bytes);
  }
  void goaway() override { session_.goaway(); }
  bool over() override { return session_.over(); }
  void send() override {
    static char chunk[65'536];
    while (session_.wants_to_send()) {
      session_.send(transport_, sizeof chunk);
      transport_.flush();
      const ssize_t got = ::recv(peer_.get(), chunk, sizeof chunk, MSG_DONTWAIT);
      if (got <= 0) return;
      sent_.read({chunk, static_cast<size_t>(got)}, verdict, credit);
    }
  }

 private:
  static EventLoop& loop() {
    static EventLoop one;
    return one;
  }
  static BlockPool& blocks() {
    static BlockPool one;
    return one;
  }
  void on_io(uint32_t) override {}
  Http2Stream& open_stream(int32_t id) override {
    streams_[id] = std::make_unique<OurStream>();
    open_[id] = true;
    return *streams_[id];
  }
  bool on_field(Http2Stream& stream, const Http2Field& field) override {
    add_field(fields_[stream.id()], field.name, field.value);
    return true;
  }
  bool on_bad_field(Http2Stream& stream) override {
    add_field(fields_[stream.id()], "bad", "");
    return true;
  }
  void on_head(Http2Stream& stream, bool ends) override {
    verdict.told[stream.id()] += end_of(fields_[stream.id()], ends);
  }
  void on_malformed(Http2Stream& stream, bool) override { fields_.erase(stream.id()); }
  void on_data(Http2Stream& stream, std::string_view data) override {
    verdict.told[stream.id()] += data;
    held_[stream.id()] += data.size();
  }
  void on_content_end(Http2Stream& stream) override { verdict.told[stream.id()] += "end. "; }
  void write_head(Http2Stream& stream, bool ends, ProxyTransport& transport) override {
    HeadersFrame frame(session_.encoder(), 100, 1);
    frame.add(":status", "200");
    frame.send(transport, stream.id(), ends);
  }
  Http2Content content_of(const Http2Stream& stream) const override {
    return {0, static_cast<const OurStream&>(stream).whole, false};
  }
  void write_content(Http2Stream&, size_t, bool, ProxyTransport&) override {}
  void on_closed(Http2Stream& stream, Http2Error error) override {
    verdict.told[stream.id()] += std::string("closed:") + name(error) + ' ';
    open_.erase(stream.id());
    if (const size_t bytes = std::exchange(held_[stream.id()], 0); bytes > 0) session_.take_of_connection(bytes);
  }

  ProxyTransport transport_;
  UniqueFd peer_;
  SentReader sent_;
  Http2Session session_;
  std::map<int32_t, std::unique_ptr<OurStream>> streams_;  // they stay after they are closed
  std::map<int32_t, bool> open_;
};

class TheirEnd final : public End {
 public:
  TheirEnd(Role role, std::initializer_list<Http2Session::Setting> settings, size_t window)
      : role_(role), sent_(role == Role::client) {
    nghttp2_session_callbacks* callbacks = nullptr;
    nghttp2_session_callbacks_new(&callbacks);
    nghttp2_session_callbacks_set_on_begin_headers_callback(
        callbacks, [](nghttp2_session*, const nghttp2_frame* frame, void* self) {
          auto& end = *static_cast<TheirEnd*>(self);
          end.fields_.erase(frame->hd.stream_id);
          return 0;
        });
    nghttp2_session_callbacks_set_on_header_callback(
        callbacks, [](nghttp2_session*, const nghttp2_frame* frame, const uint8_t* name, size_t name_bytes,
                      const uint8_t* value, size_t value_bytes, uint8_t, void* self) {
          add_field(static_cast<TheirEnd*>(self)->fields_[frame->hd.stream_id], text(name, name_bytes),
                    text(value, value_bytes));
          return 0;
        });
    nghttp2_session_callbacks_set_on_invalid_header_callback(
        callbacks, [](nghttp2_session*, const nghttp2_frame* frame, const uint8_t*, size_t, const uint8_t*, size_t,
                      uint8_t, void* self) {
          add_field(static_cast<TheirEnd*>(self)->fields_[frame->hd.stream_id], "bad", "");
          return 0;
        });
    nghttp2_session_callbacks_set_on_frame_recv_callback(
        callbacks, [](nghttp2_session*, const nghttp2_frame* frame, void* self) {
          auto& end = *static_cast<TheirEnd*>(self);
          const int32_t id = frame->hd.stream_id;
          const bool ends = (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;
          if (frame->hd.type == NGHTTP2_HEADERS) end.verdict.told[id] += end_of(end.fields_[id], ends);
          if (frame->hd.type == NGHTTP2_DATA && ends) end.verdict.told[id] += "end. ";
          return 0;
        });
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(
        callbacks, [](nghttp2_session*, uint8_t, int32_t id, const uint8_t* data, size_t bytes, void* self) {
          auto& end = *static_cast<TheirEnd*>(self);
          end.verdict.told[id] += text(data, bytes);
          end.held_[id] += bytes;
          return 0;
        });
    nghttp2_session_callbacks_set_on_stream_close_callback(
        callbacks, [](nghttp2_session* session, int32_t id, uint32_t error, void* self) {
          auto& end = *static_cast<TheirEnd*>(self);
          end.verdict.told[id] += std::string("closed:") + name(static_cast<Http2Error>(error)) + ' ';
          if (const size_t bytes = std::exchange(end.held_[id], 0); bytes > 0) {
            nghttp2_session_consume_connection(session, bytes);
          }
          return 0;
        });
    nghttp2_option* options = nullptr;
    nghttp2_option_new(&options);
    nghttp2_option_set_no_auto_window_update(options, 1);
    nghttp2_option_set_no_closed_streams(options, 1);
    nghttp2_option_set_max_continuations(options, kHttp2Continuations);
    nghttp2_option_set_stream_reset_rate_limit(options, 1'000'000, 1'000'000);
    (role == Role::server ? nghttp2_session_server_new2 : nghttp2_session_client_new2)(&session_, callbacks, this,
                                                                                       options);
    nghttp2_option_del(options);
    nghttp2_session_callbacks_del(callbacks);
    std::vector<nghttp2_settings_entry> entries;
    for (const auto& [id, value] : settings) entries.push_back({static_cast<int32_t>(id), value});
    nghttp2_submit_settings(session_, NGHTTP2_FLAG_NONE, entries.data(), entries.size());
    nghttp2_session_set_local_window_size(session_, NGHTTP2_FLAG_NONE, 0, static_cast<int32_t>(window));
  }
  ~TheirEnd() override { nghttp2_session_del(session_); }
  TheirEnd(const TheirEnd&) = delete;
  TheirEnd& operator=(const TheirEnd&) = delete;

  void receive(std::string_view bytes) override {
    if (verdict.ended) return;
    const ssize_t taken =
        nghttp2_session_mem_recv(session_, reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
    if (taken < 0) verdict.ended = verdict.without_code = true;
  }
  bool has(int32_t id) override { return nghttp2_session_find_stream(session_, id) != nullptr && open_or_sent(id); }
  int64_t send_window(int32_t id) override {
    return id == 0 ? nghttp2_session_get_remote_window_size(session_)
                   : nghttp2_session_get_stream_remote_window_size(session_, id);
  }
  void request(int32_t id, std::string_view method, bool has_content) override {
    const nghttp2_nv pairs[] = {pair(":method", method), pair(":scheme", "http"), pair(":authority", "a"),
                                pair(":path", "/")};
    nghttp2_data_provider content{{.ptr = this}, &read_content};
    const int32_t made =
        nghttp2_submit_request(session_, nullptr, pairs, std::size(pairs), has_content ? &content : nullptr, nullptr);
    if (made != id) std::abort();
  }
  void end_request(int32_t id) override {
    whole_[id] = true;
    nghttp2_session_resume_data(session_, id);
  }
  void answer(int32_t id, bool ends) override {
    const nghttp2_nv pairs[] = {pair(":status", "200")};
    nghttp2_submit_headers(session_, ends ? NGHTTP2_FLAG_END_STREAM : NGHTTP2_FLAG_NONE, id, nullptr, pairs, 1,
                           nullptr);
  }
  void reset(int32_t id, Http2Error error) override {
    nghttp2_submit_rst_stream(session_, NGHTTP2_FLAG_NONE, id, static_cast<uint32_t>(error));
  }
  void take(int32_t id) override {
    if (const size_t bytes = std::exchange(held_[id], 0); bytes > 0) nghttp2_session_consume(session_, id, bytes);
  }
  void goaway() override {
    nghttp2_submit_goaway(session_, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(session_), 0, nullptr,
                          0);
  }
  bool over() override { return nghttp2_session_want_read(session_) == 0 && nghttp2_session_want_write(session_) == 0; }
  void send() override {
    for (;;) {
      const uint8_t* data = nullptr;
      const ssize_t bytes = nghttp2_session_mem_send(session_, &data);
      if (bytes <= 0) return;
      sent_.read(text(data, static_cast<size_t>(bytes)), verdict, credit);
    }
  }

 private:
  static std::string_view text(const uint8_t* data, size_t bytes) {
    return {reinterpret_cast<const char*>(data), bytes};
  }
  static nghttp2_nv pair(std::string_view name, std::string_view value) {
    const auto bytes = [](std::string_view s) { return reinterpret_cast<uint8_t*>(const_cast<char*>(s.data())); };
    return {bytes(name), bytes(value), name.size(), value.size(), NGHTTP2_NV_FLAG_NONE};
  }
  static ssize_t read_content(nghttp2_session*, int32_t id, uint8_t*, size_t, uint32_t* flags,
                              nghttp2_data_source* source, void*) {
    if (!static_cast<TheirEnd*>(source->ptr)->whole_[id]) return NGHTTP2_ERR_DEFERRED;
    *flags |= NGHTTP2_DATA_FLAG_EOF;
    return 0;
  }
  bool open_or_sent(int32_t id) const {
    return role_ == Role::server || nghttp2_session_get_stream_local_close(session_, id) >= 0;
  }

  const Role role_;
  SentReader sent_;
  nghttp2_session* session_ = nullptr;
  std::map<int32_t, bool> whole_;  // its request
};

}  // namespace tidegate::l7::http2_judge
