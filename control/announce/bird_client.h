// SPDX-License-Identifier: Apache-2.0
// BirdClient: a connection to BIRD's control socket, like birdc. Commands are lines. An answer is lines of "CODE-text";
// the last one is "CODE text". Codes of 8000 and more are errors.
//
// Threads: the loop's. Nothing blocks.
#pragma once

#include <deque>
#include <functional>
#include <string>

#include "core/event_loop.h"
#include "core/fd.h"
#include "core/result.h"

namespace tidegate {

class BirdClient final : private IoHandler {
 public:
  using Answer = std::function<void(const Result<std::string>& text)>;

  // `on_change` is called when BIRD answered the connection, and when the connection is lost.
  BirdClient(EventLoop& loop, std::string socket_path, std::function<void()> on_change);
  ~BirdClient();

  // Opens a connection if there is none. Returns an Error if it cannot.
  Result<void> connect();
  bool answers() const { return greeted_; }
  // The answer comes once, from the loop: its text, or an Error with BIRD's text. A connection without an answer for
  // kBirdAnswerMs is closed.
  void ask(const std::string& command, Answer answer);

 private:
  void on_io(uint32_t events) override;
  bool take_line(const std::string& line);
  void close(const std::string& why);

  EventLoop& loop_;
  const std::string socket_path_;
  const std::function<void()> on_change_;
  UniqueFd fd_;
  bool greeted_ = false;
  std::string buffer_, text_;
  std::deque<Answer> waiting_;
  Timer deadline_;
};

}  // namespace tidegate
