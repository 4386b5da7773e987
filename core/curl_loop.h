// SPDX-License-Identifier: Apache-2.0
// CurlLoop: libcurl's transfers on an event loop. libcurl opens, keeps and closes the connections; this class tells the
// loop which sockets to watch and when to wake libcurl.
//
// Threads: the loop's. libcurl looks up names of endpoints on threads of its own.
#pragma once

#include <curl/curl.h>

#include <functional>
#include <map>
#include <memory>

#include "core/event_loop.h"

namespace tidegate {

class CurlLoop {
 public:
  explicit CurlLoop(EventLoop& loop);
  ~CurlLoop();
  CurlLoop(const CurlLoop&) = delete;
  CurlLoop& operator=(const CurlLoop&) = delete;

  // Starts a transfer. `done` is called when it ended, on the loop, never inside libcurl. The caller keeps `easy`.
  void add(CURL* easy, std::function<void(CURLcode)> done);
  // Ends the transfer without a call of `done`. Must not be called inside one of libcurl's own callbacks.
  void remove(CURL* easy);
  // `turn` runs after libcurl has worked, and not inside it. So it may use what libcurl's callbacks left.
  void after_each_turn(std::function<void()> turn) { after_ = std::move(turn); }

 private:
  struct Socket;
  static int on_socket(CURL*, curl_socket_t fd, int what, void* self, void*);
  static int on_timeout(CURLM*, long timeout_ms, void* self);
  void watch(int fd, int what);
  void act(int fd, int events);
  void take_results();

  EventLoop& loop_;
  CURLM* multi_;
  Timer timer_;
  std::map<int, std::unique_ptr<Socket>> sockets_;
  std::map<CURL*, std::function<void(CURLcode)>> running_;
  std::function<void()> after_;
};

}  // namespace tidegate
