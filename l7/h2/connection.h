// SPDX-License-Identifier: Apache-2.0
// H2Connection: HTTP/2 on a client's connection (RFC 9113). Http2Session speaks the protocol.
//
// Back-pressure: a request's body is held in its stream, at most the stream's window. The window opens again as the
// transaction takes the body, and it grows while the backend takes everything (UploadWindows). An answer's pieces wait
// in their stream, one at a time, until the client's windows and the socket take them. What the session tells is only
// recorded, and pump() sends.
//
// Turns: one round of the loop takes at most kHttp2TurnFrames frames of a client. Requests begin after all frames of
// the turn are taken, not while they are read. So a request that is reset in the same turn never begins.
// Http2Conduct counts frames without progress of a request. The connection of a client that sends too many is closed.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "core/turn.h"
#include "l7/exchange/transaction.h"
#include "l7/h2/conduct.h"
#include "l7/h2/session.h"
#include "l7/h2/stream.h"
#include "l7/h2/wake_list.h"
#include "l7/h2/walk.h"
#include "l7/h2/windows.h"
#include "l7/listener/client_connection.h"

namespace tidegate::l7 {

constexpr std::string_view kHttp2DrainPing = "draining";
constexpr size_t kHttp2GatheredBytes = kBlockBytes;  // bytes of frames that are sent in one write

class H2Connection final : public ClientProtocol, private Http2Session::User {
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
  // connection.cc
  // Sends what is ready and resumes the streams that this, or what was received, has moved; until nothing moves.
  void pump();
  void pump_at_round_end();
  void receive();
  void send_frames();
  void wake(H2Stream& stream) { awake_.add(stream); }
  void resume_awake();
  void resume_stream(H2Stream& stream);
  void start_request(H2Stream& stream);
  bool may_go_on() const;
  void close_stream(H2Stream* stream);
  // The second step of a drain: names the last request that is taken.
  void say_last_request();
  void give_up();
  // Ends all streams, sends GOAWAY past the session, and reads on for a while, so that the client can read it.
  void send_away(Http2Error error, Http2Fault why);
  void send_away_for(Http2Session::Stop stop);
  void linger();

  // watch.cc
  void look_at_ns(uint64_t at_ns);
  void note_progress();
  void watch_client();
  void watch_stream(H2Stream& stream);
  uint64_t look_at_streams(uint64_t now_ns);

  // callbacks.cc: what the session tells, in the order in which a request meets it.
  Http2Stream& open_stream(int32_t id) override;
  bool on_field(Http2Stream& of, const Http2Field& field) override;
  static void add_trailer(H2Stream& stream, const Http2Field& field);
  bool on_bad_field(Http2Stream& of) override;
  void on_malformed(Http2Stream& of, bool whole) override;
  void on_head(Http2Stream& of, bool ends) override;
  void on_data(Http2Stream& of, std::string_view data) override;
  void on_content_end(Http2Stream& of) override;
  void on_reset_received() override;
  void on_pong(std::string_view data) override;
  void on_connection_error(Http2Error error) override;
  void write_head(Http2Stream& of, bool ends, ProxyTransport& transport) override;
  Http2Content content_of(const Http2Stream& of) const override;
  void write_content(Http2Stream& of, size_t bytes, bool ends, ProxyTransport& transport) override;
  void on_reset_sent(Http2Stream& of, Http2Error error) override;
  void on_closed(Http2Stream& of, Http2Error error) override;
  Refusal refuse(H2Stream& stream, std::string& line);

  ClientConnection& connection_;
  ProxyTransport& transport_;
  Http2Session session_;
  std::vector<std::unique_ptr<H2Stream>> streams_;
  WakeList<H2Stream> awake_;
  Http2Conduct conduct_;
  Http2Walk walk_;
  TurnCount turn_frames_;
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
  bool sent_away_ = false;       // GOAWAY was sent; the session is not used any more
};

}  // namespace tidegate::l7
