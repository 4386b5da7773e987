// SPDX-License-Identifier: Apache-2.0
// ProxyTransport: one non-blocking socket, plain or TLS. It is registered with epoll once, edge-triggered, and
// remembers readiness itself. So an exchange on a kept connection costs no epoll_ctl(2).
//
// Small pieces are gathered until flush(). Large ones are written at once without a copy, after the gathered ones. A
// failure is remembered, and there is no callback: the owner calls broken().
//
// One round of the loop reads at most kTurnBytes in kTurnReads reads from one socket. Then fill() returns `blocked`,
// and the handler is called again in the next round.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "core/event_loop.h"
#include "core/fd.h"
#include "core/tls.h"
#include "core/turn.h"
#include "l7/wire/buffer.h"
#include "l7/wire/message.h"

namespace tidegate::l7 {

class ProxyTransport {
 public:
  enum class Status : uint8_t { ok, blocked, closed, failed };

  ProxyTransport(EventLoop& loop, BlockPool& blocks) : loop_(loop), out_(blocks, OutQueue::First::large) {}
  ~ProxyTransport() { close(); }
  ProxyTransport(const ProxyTransport&) = delete;
  ProxyTransport& operator=(const ProxyTransport&) = delete;

  // Takes the socket. `handler` is called when the socket is ready, until close(). Returns false if the kernel refuses.
  [[nodiscard]] bool open(UniqueFd fd, IoHandler* handler);
  void start_tls(std::shared_ptr<TlsContext> context, bool server, const std::string& server_name = {});
  // Call it before the handshake of a client: ALPN offers only this protocol, and not those of the context.
  void offer(const std::string& protocol) { tls_->offer(protocol); }
  void close();
  bool is_open() const { return static_cast<bool>(fd_); }
  int fd() const { return fd_.get(); }

  // Call it first in on_io.
  void note(uint32_t events);
  bool readable() const { return readable_ || (tls_ && tls_->has_pending()); }
  bool peer_hung_up() const { return hung_up_; }  // at least its sending side is closed
  bool peer_gone() const { return gone_; }        // the connection is over in both directions
  Status handshake();

  // Reads as many bytes as have come and fit. ok: bytes came; closed: orderly end; blocked: no bytes now, no space, or
  // no more in this round.
  Status fill(InBuffer& in);
  // Lets other connections go first: the handler is called again in the next round.
  void yield();

  // Gathers bytes. Returns false (and is broken) if the bounded queue is full.
  bool queue(std::string_view data);
  // Sends the gathered bytes and then `data`. Bytes that the socket does not take now are copied and wait for flush().
  bool send(std::string_view data);
  bool flush();
  bool drained() const { return out_.bytes() == 0 && (!tls_ || tls_->drained()); }
  // True if the caller may offer more bytes: the socket is not known to be full, and less than a block is gathered.
  bool takes_more() const { return !broken_ && (drained() || (writable_ && out_.bytes() < kBlockBytes)); }
  size_t waiting_bytes() const { return out_.bytes(); }
  bool broken() const { return broken_; }
  // Half-closes after everything was sent (TLS: close_notify first).
  void shut_write();

  const TlsStream* tls() const { return tls_.get(); }
  uint64_t bytes_read() const { return bytes_read_; }
  uint64_t bytes_written() const { return bytes_written_; }
  // Bytes that the peer's kernel has acknowledged, those of TLS included. Asks our kernel.
  uint64_t bytes_acknowledged() const;
  // For a connection made by this process: what happened to its first bytes. Asks the kernel while nothing was read.
  struct FirstBytes {
    bool acknowledged = false;
    bool in_flight = false;
    uint32_t repeated = 0;  // packets that were sent again, including the SYN
  };
  FirstBytes first_bytes() const;
  // After this call close() sends a reset (RST) and throws away bytes that the peer has not taken.
  void reset_on_close();

 private:
  static constexpr size_t kGatherBytes = 4096;  // below this size a copy is cheaper than a system call
  bool may_read();
  bool write_plain(std::string_view data);
  bool write_tls(std::string_view data);
  bool encrypt(std::string_view& data);
  Status fill_plain(InBuffer& in);
  Status fill_tls(InBuffer& in);

  EventLoop& loop_;
  UniqueFd fd_;
  std::unique_ptr<TlsStream> tls_;
  OutQueue out_;
  uint64_t bytes_read_ = 0, bytes_written_ = 0;
  TurnCount turn_bytes_, turn_reads_;
  bool readable_ = false;
  bool writable_ = true;
  bool hung_up_ = false;
  bool gone_ = false;
  bool end_seen_ = false;
  bool broken_ = false;
};

// Gathers the last chunk of a body and its trailers (RFC 9112 §7.1.2).
void queue_last_chunk(ProxyTransport& transport, const Trailers& trailers);

}  // namespace tidegate::l7
