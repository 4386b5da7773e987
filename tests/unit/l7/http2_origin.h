// SPDX-License-Identifier: Apache-2.0
// An HTTP/2 origin by nghttp2, with prior knowledge: one thread for each connection.
#pragma once

#include <nghttp2/nghttp2.h>

#include <atomic>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "tests/unit/l7/http2_client.h"
#include "tests/unit/l7/support.h"

namespace tidegate::l7::test {

class Http2Origin {
 public:
  struct Request {
    size_t connection = 0;  // the first one is 1
    int32_t stream = 0;
    std::map<std::string, std::string> fields, trailers;
    std::string body;
    size_t data_frames = 0;
  };
  struct Answer {
    Http2Fields fields{{":status", "200"}};
    std::string body;
    Http2Fields trailers;
    std::vector<Http2Fields> interim;
    bool silent = false;            // nothing is sent
    bool cut = false;               // the answer has no end
    std::optional<uint32_t> reset;  // RST_STREAM with that code replaces the rest of the answer
    int32_t goaway_at = 0;          // GOAWAY with that last stream
    bool close = false;             // the connection ends
    // after `body`, received bytes are sent back; at their end, `farewell` and END_STREAM
    bool echo = false;
    std::string farewell;
  };
  // Called by the connection's thread when a request is complete; for an extended CONNECT, when its head is.
  using Handler = std::function<Answer(const Request&)>;

  // `tunnels`: extended CONNECT is allowed (RFC 8441).
  explicit Http2Origin(Handler handler, uint32_t max_streams = 1000, bool tunnels = false);
  ~Http2Origin();
  Endpoint endpoint() const { return endpoint_; }
  size_t connections() const { return connections_; }
  size_t requests() const { return requests_; }
  size_t resets() const { return resets_; }  // RST_STREAM received
  // Requests with a silent answer that were not reset, over all connections.
  size_t open_streams() const { return open_streams_; }
  size_t most_open_streams() const { return most_open_streams_; }
  // The largest window of a client for one stream while an answer was sent.
  size_t widest_window() const { return widest_window_; }

 private:
  struct Stream {
    Request request;
    Answer answer;
    size_t sent = 0;
    bool head_ended = false;
    bool answered = false;
    bool tunnel_ended = false;  // ended by the client
  };
  struct Connection;
  void run();
  void serve(int fd, size_t number);
  static nghttp2_session_callbacks* callbacks();

  Handler handler_;
  const uint32_t max_streams_;
  const bool tunnels_;
  UniqueFd listen_;
  Endpoint endpoint_;
  std::atomic<size_t> connections_{0}, requests_{0}, resets_{0}, open_streams_{0}, most_open_streams_{0},
      widest_window_{0};
  std::mutex mutex_;
  std::vector<int> open_;
  std::vector<std::thread> threads_;
  std::thread acceptor_;
};

}  // namespace tidegate::l7::test
