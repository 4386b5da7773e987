// SPDX-License-Identifier: Apache-2.0
// Http2Session: the protocol of one HTTP/2 connection (RFC 9113), as server or as client: frames, states of streams,
// flow control, settings, the rules for messages. It knows nothing of sockets and of time. It takes bytes and tells its
// User what they mean. What is to be sent waits until send().
//
//   receive() → User::open_stream() → on_field() … → on_head() → on_data() … → on_content_end()
//   add_head(), resume(), reset() … ; send() → User::write_head(), content_of(), write_content() → on_closed()
//
// A stream is an Http2Stream, which the User makes and owns. From open_stream() or open() until on_closed() or leave()
// it is in the session's table. A stream closes when both sides have ended it, or when a reset was sent or received.
//
// Frames are sent in this order. Frames of the connection come first. Resets and heads follow in the order in which
// they were added. Then new requests are sent, if the peer takes more streams. Content comes last: each stream sends
// one frame in turn. Priorities are read and not followed (RFC 9113 §5.3.2).
//
// Errors: a fault of a stream resets it. A fault of the connection sends GOAWAY, and what comes after it is dropped.
// The rest is Stop: the User ends the connection itself.
//
// Threads: one at a time. From within its functions the User may call everything but receive() and send(). It must not
// destroy a stream there, but for the one that on_closed() gives it: what an event means for an exchange waits until
// receive() or send() has returned.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>

#include "l7/h2/frames.h"
#include "l7/h2/hpack.h"
#include "l7/h2/hpack_decoder.h"
#include "l7/h2/message_rules.h"
#include "l7/wire/transport.h"

namespace tidegate::l7 {

// How much a peer may send (§5.2). It may still send `credit_` bytes, and we hold `held_` bytes that were not taken.
// Both together are the size, unless the size has shrunk.
class ReceiveWindow {
 public:
  explicit ReceiveWindow(int64_t size = 0) : size_(size), credit_(size) {}
  int64_t size() const { return size_; }
  void set_size(int64_t size) { size_ = size; }
  // Returns false if the peer sends more than it may.
  bool receive(size_t bytes) {
    if (static_cast<int64_t>(bytes) > credit_) return false;
    credit_ -= static_cast<int64_t>(bytes);
    held_ += static_cast<int64_t>(bytes);
    return true;
  }
  void take(size_t bytes) { held_ -= static_cast<int64_t>(bytes); }
  // What the peer may be given now.
  int64_t owed() const { return size_ - held_ - credit_; }
  void give(int64_t bytes) { credit_ += bytes; }

 private:
  int64_t size_;
  int64_t credit_;    // what the peer may still send
  int64_t held_ = 0;  // received and not taken
};

class Http2StreamList;

class Http2Stream {
 public:
  int32_t id() const { return id_; }  // 0: not yet in a session
  int64_t send_window() const { return send_window_; }

 protected:
  Http2Stream() = default;
  ~Http2Stream() = default;
  Http2Stream(const Http2Stream&) = delete;
  Http2Stream& operator=(const Http2Stream&) = delete;

 private:
  friend class Http2Session;
  friend class Http2StreamList;
  int32_t id_ = 0;
  uint16_t heads_ = 0;  // that wait to be sent
  bool in_table_ = false;
  bool head_ends_ = false;      // the last of the heads ends the stream
  bool has_content_ = false;    // content follows the heads
  bool request_sent_ = false;   // as client: its head was sent
  bool head_received_ = false;  // a whole head has come
  bool received_end_ = false;
  bool sent_end_ = false;
  bool resets_ = false;  // a reset waits to be sent; what comes is dropped
  Http2Error reset_error_ = Http2Error::no_error;
  int64_t send_window_ = 0;
  ReceiveWindow receive_;
  MessageRules rules_;
  Http2StreamList* list_ = nullptr;  // the list that it is in
  Http2Stream* before_ = nullptr;
  Http2Stream* after_ = nullptr;
  Http2Stream* same_bucket_ = nullptr;
};

// Streams in the order in which they were added. A stream is in one list at most.
class Http2StreamList {
 public:
  Http2Stream* first() const { return first_; }
  bool empty() const { return first_ == nullptr; }
  // Moves it here if it is in another list.
  void add(Http2Stream& stream);
  static void remove(Http2Stream& stream);

 private:
  Http2Stream* first_ = nullptr;
  Http2Stream* last_ = nullptr;
};

// What of a stream's content waits to be sent.
struct Http2Content {
  size_t bytes = 0;
  bool whole = false;     // nothing will be added
  bool trailers = false;  // a head follows the content
};

class Http2Session {
 public:
  enum class Role : uint8_t { server, client };
  // Why the User must end the connection.
  enum class Stop : uint8_t {
    none,
    bad_preface,
    header_bytes,  // on_field() or on_bad_field() said so
    flood,         // too many CONTINUATION frames, or too many acknowledgements that wait to be sent
  };

  class User {
   public:
    // --- what has come
    // Server: a request begins. Returns its stream.
    virtual Http2Stream& open_stream(int32_t id) = 0;
    // A field of a head or of trailers. Returning false stops: Stop::header_bytes.
    virtual bool on_field(Http2Stream& stream, const Http2Field& field) = 0;
    // FieldVerdict::bad.
    virtual bool on_bad_field(Http2Stream& stream) = 0;
    // A head or trailers are complete.
    virtual void on_head(Http2Stream& stream, bool ends) = 0;
    // A head or trailers are malformed, and the stream will be reset. `whole`: all fields have come.
    virtual void on_malformed(Http2Stream& stream, bool whole) = 0;
    virtual void on_data(Http2Stream& stream, std::string_view data) = 0;
    virtual void on_content_end(Http2Stream& stream) = 0;
    virtual void on_settings() {}
    virtual void on_reset_received() {}
    virtual void on_pong(std::string_view) {}
    // Streams above `last_id`, and those whose requests were not sent, are closed afterwards (REFUSED_STREAM).
    virtual void on_goaway(int32_t) {}
    // A fault of the peer ends the connection with GOAWAY.
    virtual void on_connection_error(Http2Error) {}

    // --- what is sent
    // Sends the next head of the stream.
    virtual void write_head(Http2Stream& stream, bool ends, ProxyTransport& transport) = 0;
    virtual Http2Content content_of(const Http2Stream& stream) const = 0;
    // Sends so many bytes of it. The head of their frame was sent.
    virtual void write_content(Http2Stream& stream, size_t bytes, bool ends, ProxyTransport& transport) = 0;
    virtual void on_reset_sent(Http2Stream&, Http2Error) {}

    // The stream has left the session.
    virtual void on_closed(Http2Stream& stream, Http2Error error) = 0;

   protected:
    ~User() = default;
  };

  // `connection_window`: bytes that the peer may send on all streams.
  using Setting = std::pair<SettingsId, uint32_t>;
  Http2Session(Role role, User& user, std::initializer_list<Setting> settings, size_t connection_window);
  Http2Session(const Http2Session&) = delete;
  Http2Session& operator=(const Http2Session&) = delete;

  // --- receiving
  // Takes all of the input.
  [[nodiscard]] Stop receive(std::string_view input);
  // As RFC 9113 §6.5.2 counts: of the fields of the present head so far.
  size_t block_bytes() const { return block_.bytes; }
  // The last stream of the peer that was opened.
  int32_t last_stream() const { return last_opened_; }

  // --- streams
  // Client: begins a request. Its head is sent when the peer takes one more stream. False: no id is left.
  [[nodiscard]] bool open(Http2Stream& stream, std::string_view method, bool has_content);
  // Server: one more head waits to be sent. `ends`: it ends the stream.
  void add_head(Http2Stream& stream, bool ends);
  // Server: content follows the heads.
  void add_content(Http2Stream& stream);
  // content_of() has changed.
  void resume(Http2Stream& stream);
  void reset(Http2Stream& stream, Http2Error error);
  // Client: ends the use of the stream. It is reset (CANCEL) unless it is closed.
  void leave(Http2Stream& stream);
  // The connection ends, and the stream with it.
  void forget(Http2Stream& stream) {
    if (stream.in_table_) remove_from_table(stream);
  }

  // --- flow control
  void take(Http2Stream& stream, size_t bytes);
  void take_of_connection(size_t bytes);  // of a stream that is closed, or that must send no more
  void set_window(Http2Stream& stream, size_t bytes);
  void set_connection_window(size_t bytes);
  int64_t connection_window() const { return receive_.size(); }
  int64_t send_window() const { return send_window_; }

  // --- the connection
  void ping(std::string_view data);  // of eight bytes
  void announce_goaway();            // §6.8: refuses nothing yet
  void goaway();                     // later streams are not taken
  void end(Http2Error error);        // GOAWAY; nothing is received any more
  // Nothing will come, and nothing is left to be sent.
  bool over() const { return control_.empty() && (ended_ || ((goaway_sent_ || goaway_received_) && streams_ == 0)); }
  bool wants_to_send() const;
  uint32_t peer_max_streams() const { return peer_max_streams_; }
  bool peer_allows_connect() const { return peer_allows_connect_; }

  // --- sending
  // Queues frames until `most` bytes wait in the transport.
  void send(ProxyTransport& transport, size_t most);
  HpackEncoder& encoder() { return encoder_; }

 private:
  enum class Phase : uint8_t { preface, head, payload, data, skip };
  // The head that is being received.
  struct Block {
    Http2Stream* stream = nullptr;  // null: its fields are dropped
    int32_t id = 0;                 // 0: there is none
    bool ends_stream = false;
    bool trailers = false;
    size_t continuations = 0;
    size_t bytes = 0;
  };

  // session_receive.cc
  void on_frame_head();
  void on_payload(std::string_view payload);
  void begin_data();
  void on_data_bytes(std::string_view bytes);
  void end_data();
  void take_data(std::string_view bytes);
  void begin_headers();
  Http2Stream* admit_request(int32_t id);
  void on_headers(std::string_view payload);
  void on_block_part(std::string_view part, bool last);
  bool take_field(const Http2Field& field);
  void end_block();
  void on_priority(std::string_view payload);
  void on_rst_stream(std::string_view payload);
  void on_settings(std::string_view payload);
  bool take_setting(SettingsId id, uint32_t value);
  void set_peer_window(uint32_t bytes);
  void on_ping(std::string_view payload);
  void on_goaway(std::string_view payload);
  void on_window_update(std::string_view payload);
  bool is_idle(int32_t id) const;
  bool is_own(int32_t id) const { return (id % 2 != 0) == (role_ == Role::client); }
  void fail(Http2Error error);
  void malformed(Http2Stream& stream, bool whole);
  void skip_payload();

  // session_send.cc
  void put_frame(const FrameHead& head, std::string_view payload);
  void put_reset(int32_t id, Http2Error error);
  void put_window_update(int32_t id, int64_t bytes);
  void put_goaway(int32_t last, Http2Error error);
  void put_acknowledgement(FrameType type, std::string_view payload);
  void send_urgent(Http2Stream& stream, ProxyTransport& transport);
  void send_head(Http2Stream& stream, ProxyTransport& transport);
  void send_content(ProxyTransport& transport);
  void make_ready(Http2Stream& stream);

  // session.cc
  Http2Stream* find(int32_t id);
  Http2Stream*& bucket(int32_t id) { return buckets_[(static_cast<uint32_t>(id) / 2) % kBuckets]; }
  void add_to_table(Http2Stream& stream, int32_t id);
  void remove_from_table(Http2Stream& stream);
  void close(Http2Stream& stream, Http2Error error);
  void close_if_done(Http2Stream& stream);

  static constexpr size_t kBuckets = 32;

  User& user_;
  const Role role_;
  Phase phase_;
  bool first_settings_seen_ = false;
  bool settings_acknowledged_ = false;
  bool goaway_sent_ = false;
  bool goaway_received_ = false;
  bool ended_ = false;  // by end()
  bool peer_allows_connect_ = false;
  Stop stop_ = Stop::none;

  // --- receiving
  FrameHead frame_;
  size_t left_ = 0;                     // of the preface, or of the present frame if it is data or skipped
  std::string partial_;                 // of a head or a payload that has not come whole
  Http2Stream* data_stream_ = nullptr;  // of the present DATA frame; null: it is dropped
  size_t padding_ = 0;                  // of the present DATA frame: its last bytes
  bool padding_known_ = false;
  Block block_;
  std::string block_rest_;  // the beginning of a field that goes on in CONTINUATION
  HpackDecoder decoder_;
  ReceiveWindow receive_{kHttp2FirstWindow};
  uint32_t own_max_streams_ = UINT32_MAX;
  uint32_t own_stream_window_ = kHttp2FirstWindow;

  // --- sending
  HpackEncoder encoder_;
  std::string control_;  // frames of the connection, and others that belong to no stream in the table
  size_t unsent_acknowledgements_ = 0;
  int64_t send_window_ = kHttp2FirstWindow;
  int64_t peer_stream_window_ = kHttp2FirstWindow;
  uint32_t peer_max_streams_ = UINT32_MAX;
  int peer_priorities_ = -1;  // the first SETTINGS_NO_RFC7540_PRIORITIES; -1: none yet
  Http2StreamList urgent_;    // with heads or a reset
  Http2StreamList requests_;  // client: whose heads were not sent
  Http2StreamList contents_;  // with content that may be sent

  // --- streams
  std::array<Http2Stream*, kBuckets> buckets_{};
  Http2Stream* found_ = nullptr;  // the last that was looked for
  size_t streams_ = 0;
  size_t open_requests_ = 0;   // client: whose heads were sent
  int32_t last_received_ = 0;  // server: the highest id of the peer
  int32_t last_opened_ = 0;
  int64_t next_id_ = 1;                // client
  int32_t last_sent_ = 0;              // client: the highest id whose head was sent
  int32_t goaway_last_ = 0x7fff'ffff;  // of the last GOAWAY that came
};

}  // namespace tidegate::l7
