// SPDX-License-Identifier: Apache-2.0
// The messages by which a running daemon hands its listening sockets over to the process that follows it, and the
// channel that carries them: a pair of unix sockets that keep the borders of messages (SOCK_SEQPACKET). The old process
// makes the pair and starts the new one with its other end, so no other process can speak on it.
//
//    new process                         old process
//    hello        ──────────────────→    checks format, daemon and program
//                 ←──────────────────    sockets (one or more messages), then all_sockets
//    warm         ──────────────────→    releases what only one process can have
//                 ←──────────────────    go, with the lock of what it released
//    serving      ──────────────────→    stops accepting and drains
//                 ←──────────────────    progress, until it ends
//    refusal: either side gives up, and says why.
//
// Wire form, all integers big-endian: "TGHO", format (2 bytes), kind (2), number (8), length of the text (2), count of
// items (2); the text; then 20 bytes for each item: kind (1), family (1: 4 or 6), port (2), address (16). Each item has
// one descriptor, in the same order, by SCM_RIGHTS.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/fd.h"
#include "core/ip.h"
#include "core/result.h"

namespace tidegate {

// The formats that this program speaks. The old process names a format when it starts the new process, and the new
// process uses that format if it can. So releases with neighbouring formats understand each other, in both directions.
struct HandOverFormats {
  uint16_t oldest = 1;
  uint16_t newest = 2;
  bool includes(uint16_t format) const { return format >= oldest && format <= newest; }
};
inline constexpr HandOverFormats kHandOverFormats{};

enum class HandOverKind : uint16_t { hello = 1, sockets, all_sockets, warm, go, serving, progress, refusal };
const char* name(HandOverKind kind);

enum class HandOverItemKind : uint8_t {
  stream = 1,   // a TCP socket that listens
  datagram,     // a bound UDP socket
  metrics,      // the TCP socket of --metrics
  lock,         // an open file that holds a lock
  predecessor,  // the channel to a process that still drains
  memory,       // (a sealed memfd) counts that both processes share; from format 2 on
};

// True if messages of that format can have items of that kind.
bool is_in_format(HandOverItemKind kind, uint16_t format);

struct HandOverItem {
  HandOverItemKind kind = HandOverItemKind::stream;
  Endpoint endpoint;  // as the configuration says it; unspecified for lock, predecessor and memory
};

struct HandOverMessage {
  HandOverKind kind = HandOverKind::hello;
  uint64_t number =
      0;             // progress: connections left; all_sockets: how many were sent; serving, predecessor: the process
  std::string text;  // hello: daemon, program and format of its data, by line; refusal: why; warm: what is in force
  std::vector<HandOverItem> items;
  uint16_t format = 0;  // the format in which the message came
};

// Pure. The message must be within the limits.
std::string encode(const HandOverMessage& message, uint16_t format);
// The Error says what is wrong; for another format it names both.
Result<HandOverMessage> decode_hand_over(std::string_view bytes, HandOverFormats formats = kHandOverFormats);

struct HandOverReceived {
  HandOverMessage message;
  std::vector<UniqueFd> descriptors;  // as many as the message has items
};

// One end of the channel. Any thread may use it, one at a time. Only receive() blocks.
class HandOverChannel {
 public:
  HandOverChannel(UniqueFd socket, uint16_t format) : socket_(std::move(socket)), format_(format) {}
  // Both ends.
  static Result<std::pair<UniqueFd, UniqueFd>> make_pair();

  // `descriptors`: one for each item, borrowed.
  Result<void> send(const HandOverMessage& message, const std::vector<int>& descriptors = {});
  // Waits up to `timeout_ms` for a message. With 0 it takes only a message that has already arrived. Errors: nothing
  // came, the other end is closed ("it ended"), the message is malformed or its descriptors do not fit its items. Then
  // all its descriptors are closed. Later messages are sent in the format of the received one.
  Result<HandOverReceived> receive(int timeout_ms);
  // A message, or the end, can be received.
  bool readable() const;
  int fd() const { return socket_.get(); }
  UniqueFd release() { return std::move(socket_); }
  uint16_t format() const { return format_; }

 private:
  UniqueFd socket_;
  uint16_t format_;
};

}  // namespace tidegate
