// SPDX-License-Identifier: Apache-2.0
// H2Connection: HTTP/2 on a client's connection (RFC 9113) by nghttp2.
//
// Back-pressure: a request's body is held in its stream, at most the stream's window. The window opens again as the
// transaction takes the body, and it grows while the backend takes everything (UploadWindows). An answer's pieces wait
// in their stream, one at a time, until the client's windows and the socket take them. nghttp2 is never called from
// within its own callbacks: they only submit frames, and pump() sends them.
//
// Turns: one round of the loop takes at most kHttp2TurnFrames frames of a client. Requests begin after all frames of
// the turn are taken, not within nghttp2's callbacks. So a request that is reset in the same turn never begins.
// Http2Conduct counts frames without progress of a request. The connection of a client that sends too many is closed.
#pragma once

#include <nghttp2/nghttp2.h>

#include <memory>
#include <vector>

#include "core/turn.h"
#include "l7/exchange/transaction.h"
#include "l7/h2/conduct.h"
#include "l7/h2/hpack.h"
#include "l7/h2/stream.h"
#include "l7/h2/wake_list.h"
#include "l7/h2/walk.h"
#include "l7/h2/windows.h"
#include "l7/listener/client_connection.h"

namespace tidegate::l7 {

constexpr uint8_t kHttp2DrainPing[8] = {'d', 'r', 'a', 'i', 'n', 'i', 'n', 'g'};
constexpr size_t kHttp2GatheredBytes = kBlockBytes;  // bytes of frames that are sent in one write

class H2Connection final : public ClientProtocol {
 public:
  explicit H2Connection(ClientConnection& connection);

  void on_ready() override;
  void on_timer() override;
  void on_round_end() override { pump(); }
  void drain() override;
  void recycle() override { give_up(); }
  void on_closing() override;

 private:
  friend class H2Stream;
  struct SessionDelete {
    void operator()(nghttp2_session* session) const { nghttp2_session_del(session); }
  };
  static nghttp2_session_callbacks* callbacks();

  // connection.cc
  // Sends what is ready and resumes the streams that this, or what was received, has moved; until nothing moves.
  void pump();
  void pump_at_round_end();
  void receive();
  void send_frames();
  void wake(H2Stream& stream) { awake_.add(stream); }
  // Null: it is none of ours, or closed.
  H2Stream* stream_of(int32_t id);
  void resume_awake();
  void resume_stream(H2Stream& stream);
  void start_request(H2Stream& stream);
  bool count_header_bytes(size_t name_bytes, size_t value_bytes);
  void close_stream(H2Stream* stream);
  // The second step of a drain: names the last request that is taken.
  void say_last_request();
  void give_up();
  // Ends all streams, sends GOAWAY without nghttp2, and reads on for a while, so that the client can read it.
  void send_away(uint32_t error, Http2Fault why);
  void send_away_for(int library_error);
  void linger();

  // watch.cc
  void look_at_ns(uint64_t at_ns);
  void note_progress();
  void watch_client();
  void watch_stream(H2Stream& stream);
  uint64_t look_at_streams(uint64_t now_ns);

  // callbacks.cc: nghttp2's callbacks, in the order in which a request meets them.
  static int on_begin_headers(nghttp2_session*, const nghttp2_frame* frame, void* self);
  static int on_header(nghttp2_session*, const nghttp2_frame* frame, const uint8_t* name, size_t name_bytes,
                       const uint8_t* value, size_t value_bytes, uint8_t flags, void* self);
  static void add_trailer(H2Stream& stream, std::string_view name, std::string_view value);
  static int on_invalid_header(nghttp2_session*, const nghttp2_frame* frame, const uint8_t* name, size_t name_bytes,
                               const uint8_t* value, size_t value_bytes, uint8_t flags, void* self);
  static int on_frame_received(nghttp2_session*, const nghttp2_frame* frame, void* self);
  static int on_data(nghttp2_session*, uint8_t flags, int32_t id, const uint8_t* data, size_t bytes, void* self);
  static ssize_t read_body(nghttp2_session*, int32_t id, uint8_t* buffer, size_t bytes, uint32_t* flags,
                           nghttp2_data_source* source, void* self);
  static int send_data(nghttp2_session*, nghttp2_frame* frame, const uint8_t* header, size_t bytes,
                       nghttp2_data_source* source, void* self);
  static int on_frame_sent(nghttp2_session*, const nghttp2_frame* frame, void* self);
  static int on_invalid_frame(nghttp2_session*, const nghttp2_frame* frame, int error, void* self);
  static int on_stream_closed(nghttp2_session*, int32_t id, uint32_t error, void* self);
  Refusal refuse(H2Stream& stream, std::string& line);
  void count_own_reset(int32_t id, const nghttp2_rst_stream& reset);

  ClientConnection& connection_;
  ProxyTransport& transport_;
  std::unique_ptr<nghttp2_session, SessionDelete> session_;
  std::vector<std::unique_ptr<H2Stream>> streams_;
  WakeList<H2Stream> awake_;
  // The last that was looked for by its id: most callbacks come for the same stream as the one before.
  H2Stream* found_ = nullptr;
  HpackEncoder encoder_;       // of all heads that are sent
  bool head_is_sent_ = false;  // the head that nghttp2 has just made was sent by `encoder_` instead
  Http2Conduct conduct_;
  Http2Walk walk_;
  TurnCount turn_frames_;
  size_t header_bytes_ = 0;    // decoded bytes of the present header block
  size_t lingered_bytes_ = 0;  // bytes read since send_away()
  size_t unfinished_heads_ = 0;
  uint64_t head_begun_ns_ = 0;  // when the first unfinished head began
  // when a stream last opened, ended or moved bytes of a body; nothing else is progress
  uint64_t progress_ns_ = 0;
  Patience socket_patience_;            // for the client, while the socket is full
  Patience window_patience_;            // for the client, while its window for the whole connection is shut
  uint64_t sent_ = 0;                   // bytes of answers' bodies
  size_t answers_waiting_ = 0;          // streams with something in out_
  UploadWindows windows_;               // for requests' bodies
  uint64_t next_look_ns_ = UINT64_MAX;  // when the timer fires
  bool pumping_ = false;
  bool draining_ = false;        // the first GOAWAY was sent: requests are still taken
  bool last_said_ = false;       // the second GOAWAY was sent, too
  uint64_t say_last_at_ns_ = 0;  // while draining_: the latest time for the second GOAWAY
  bool sent_away_ = false;       // GOAWAY was sent; nghttp2 is not used any more
};

}  // namespace tidegate::l7
