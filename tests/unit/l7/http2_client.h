// SPDX-License-Identifier: Apache-2.0
// An HTTP/2 client by nghttp2 over a blocking socket, with prior knowledge.
#pragma once

#include <nghttp2/nghttp2.h>

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "tests/unit/l7/support.h"

namespace tidegate::l7::test {

using Http2Fields = std::vector<std::pair<std::string, std::string>>;

// Borrows the texts.
inline std::vector<nghttp2_nv> pairs_of(const Http2Fields& fields) {
  std::vector<nghttp2_nv> pairs;
  for (const auto& [name, value] : fields) {
    const auto bytes = [](const std::string& s) { return reinterpret_cast<uint8_t*>(const_cast<char*>(s.data())); };
    pairs.push_back({bytes(name), bytes(value), name.size(), value.size(), NGHTTP2_NV_FLAG_NONE});
  }
  return pairs;
}

struct StreamResult {
  std::map<std::string, std::string> fields;  // of the final answer
  std::map<std::string, std::string> trailers;
  std::vector<std::map<std::string, std::string>> interim;
  bool head_ended = false;
  std::string body;
  bool answered = false;           // END_STREAM has come
  std::optional<uint32_t> closed;  // error code

  void end_block() {
    if (head_ended) return;
    head_ended = fields[":status"].front() != '1';
    if (!head_ended) interim.push_back(std::exchange(fields, {}));
  }
};

class Http2Client {
 public:
  using Fields = Http2Fields;
  explicit Http2Client(const Endpoint& endpoint, bool lax = false) : wire_(Wire::connect(endpoint)) {
    nghttp2_session_callbacks* callbacks = nullptr;
    nghttp2_session_callbacks_new(&callbacks);
    nghttp2_session_callbacks_set_on_header_callback(
        callbacks, [](nghttp2_session*, const nghttp2_frame* frame, const uint8_t* name, size_t name_bytes,
                      const uint8_t* value, size_t value_bytes, uint8_t, void* self) {
          auto& client = *static_cast<Http2Client*>(self);
          StreamResult& stream = client.streams_[frame->hd.stream_id];
          (stream.head_ended ? stream.trailers : stream.fields)[std::string(name, name + name_bytes)] =
              std::string(value, value + value_bytes);
          return 0;
        });
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(
        callbacks, [](nghttp2_session*, uint8_t, int32_t id, const uint8_t* data, size_t bytes, void* self) {
          static_cast<Http2Client*>(self)->streams_[id].body.append(reinterpret_cast<const char*>(data), bytes);
          return 0;
        });
    nghttp2_session_callbacks_set_on_stream_close_callback(
        callbacks, [](nghttp2_session*, int32_t id, uint32_t error, void* self) {
          static_cast<Http2Client*>(self)->streams_[id].closed = error;
          return 0;
        });
    nghttp2_session_callbacks_set_on_frame_recv_callback(
        callbacks, [](nghttp2_session*, const nghttp2_frame* frame, void* self) {
          auto& client = *static_cast<Http2Client*>(self);
          if (frame->hd.type == NGHTTP2_GOAWAY) {
            client.goaway_ = frame->goaway.error_code;
          }
          if (frame->hd.type == NGHTTP2_HEADERS) client.streams_[frame->hd.stream_id].end_block();
          const bool ends = frame->hd.type == NGHTTP2_HEADERS || frame->hd.type == NGHTTP2_DATA;
          if (ends && (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0)
            client.streams_[frame->hd.stream_id].answered = true;
          return 0;
        });
    nghttp2_option* options = nullptr;
    nghttp2_option_new(&options);
    nghttp2_option_set_no_http_messaging(options, lax ? 1 : 0);
    nghttp2_session_client_new2(&session_, callbacks, this, options);
    nghttp2_option_del(options);
    nghttp2_session_callbacks_del(callbacks);
    nghttp2_submit_settings(session_, NGHTTP2_FLAG_NONE, nullptr, 0);
  }
  ~Http2Client() { nghttp2_session_del(session_); }

  // `trailers` need a body.
  int32_t submit(const Fields& fields, std::string body = {}, Fields trailers = {}) {
    const std::vector<nghttp2_nv> pairs = pairs_of(fields);
    body_ = std::move(body);
    trailers_ = std::move(trailers);
    nghttp2_data_provider provider{};
    provider.source.ptr = this;
    provider.read_callback = [](nghttp2_session* session, int32_t id, uint8_t* buffer, size_t bytes, uint32_t* flags,
                                nghttp2_data_source* source, void*) -> ssize_t {
      auto& client = *static_cast<Http2Client*>(source->ptr);
      const size_t now = client.body_.copy(reinterpret_cast<char*>(buffer), bytes);
      client.body_.erase(0, now);
      if (client.feeding_) return now == 0 ? ssize_t{NGHTTP2_ERR_DEFERRED} : static_cast<ssize_t>(now);
      if (client.body_.empty()) *flags |= NGHTTP2_DATA_FLAG_EOF;
      if (client.body_.empty() && !client.trailers_.empty()) {
        *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
        const std::vector<nghttp2_nv> pairs = pairs_of(client.trailers_);
        nghttp2_submit_trailer(session, id, pairs.data(), pairs.size());
      }
      return static_cast<ssize_t>(now);
    };
    return nghttp2_submit_request(session_, nullptr, pairs.data(), pairs.size(),
                                  body_.empty() && !feeding_ ? nullptr : &provider, nullptr);
  }
  // A request whose body is fed piece by piece. The last piece ends it.
  int32_t submit_fed(const Fields& fields) {
    feeding_ = true;
    return submit(fields, "");
  }
  void feed(int32_t id, const std::string& piece, bool last) {
    body_ += piece;
    feeding_ = !last;
    nghttp2_session_resume_data(session_, id);
    send_all();
  }
  static Fields request(const std::string& path, const std::string& method = "GET") {
    return {{":method", method}, {":scheme", "http"}, {":authority", "a.test"}, {":path", path}};
  }
  void send_all() {
    const uint8_t* data = nullptr;
    for (ssize_t bytes; (bytes = nghttp2_session_mem_send(session_, &data)) > 0;) {
      wire_.send({reinterpret_cast<const char*>(data), static_cast<size_t>(bytes)});
    }
  }
  // Runs until the stream is closed. Returns false if the connection ends before.
  bool finish(int32_t id) {
    return run_until([this, id] { return streams_[id].closed.has_value(); });
  }
  bool run_until(const std::function<bool()>& done) {
    for (;;) {
      send_all();
      if (done()) return true;
      const std::string got = wire_.read_some();
      if (got.empty()) return false;
      note_goaways(got);
      if (nghttp2_session_mem_recv(session_, reinterpret_cast<const uint8_t*>(got.data()), got.size()) < 0)
        return false;
    }
  }
  StreamResult& result(int32_t id) { return streams_[id]; }
  size_t unsent_bytes() const { return body_.size(); }  // of the last body
  nghttp2_session* session() { return session_; }
  std::optional<uint32_t> goaway() const { return goaway_; }
  // The last stream id of each GOAWAY. They are read from the frames, because for nghttp2 a session with a GOAWAY and
  // without a stream is over, and it reports no later frame.
  const std::vector<int32_t>& last_ids() const { return last_ids_; }

 private:
  // RFC 9113 §4.1 (frames), §6.8 (GOAWAY).
  void note_goaways(const std::string& got) {
    unparsed_ += got;
    const auto number = [&](size_t at, size_t bytes) {
      uint32_t value = 0;
      for (size_t i = at; i < at + bytes; ++i) value = value << 8 | static_cast<uint8_t>(unparsed_[i]);
      return value;
    };
    constexpr size_t kFrameHead = 9;
    while (unparsed_.size() >= kFrameHead && unparsed_.size() >= kFrameHead + number(0, 3)) {
      if (number(3, 1) == NGHTTP2_GOAWAY) last_ids_.push_back(static_cast<int32_t>(number(kFrameHead, 4)));
      unparsed_.erase(0, kFrameHead + number(0, 3));
    }
  }

  Wire wire_;
  std::string unparsed_;  // an incomplete frame
  nghttp2_session* session_ = nullptr;
  std::map<int32_t, StreamResult> streams_;
  std::string body_;
  bool feeding_ = false;  // more of it will come
  Fields trailers_;
  std::optional<uint32_t> goaway_;
  std::vector<int32_t> last_ids_;
};

inline Http2Client::Fields with_length(Http2Client::Fields fields, size_t bytes) {
  fields.emplace_back("content-length", std::to_string(bytes));
  return fields;
}

}  // namespace tidegate::l7::test
