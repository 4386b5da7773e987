// SPDX-License-Identifier: Apache-2.0
// Transport: one non-blocking socket, plain or TLS, registered edge-triggered once and for all, so that a kept-alive
// exchange costs no epoll_ctl(2): readiness is remembered here, reads and writes are tried at once.
//
// Small pieces are gathered and leave with flush(); large ones are written from where they lie, after what was
// gathered. A failure is remembered (broken()) and never called back: the owner looks after each round.
//
// One round of the loop reads no more than kTurnBytes in kTurnReads reads from one socket, whoever asks and however
// fast the peer sends: fill() then says `blocked`, and the handler is called again in the next round.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "core/event_loop.h"
#include "core/fd.h"
#include "core/tls.h"
#include "core/turn.h"
#include "l7/wire/buffer.h"

namespace tidegate::l7 {

class Transport {
 public:
  enum class Status : uint8_t { ok, blocked, closed, failed };

  Transport(EventLoop& loop, BlockPool& blocks) : loop_(loop), out_(blocks) {}
  ~Transport() { close(); }
  Transport(const Transport&) = delete;
  Transport& operator=(const Transport&) = delete;

  // Takes the socket; `handler` hears of readiness until close(). False when the kernel refuses.
  [[nodiscard]] bool open(UniqueFd fd, IoHandler* handler);
  void start_tls(std::shared_ptr<TlsContext> context, bool server, const std::string& server_name = {});
  void close();
  bool is_open() const { return static_cast<bool>(fd_); }
  int fd() const { return fd_.get(); }

  // To be called first in on_io.
  void note(uint32_t events);
  bool readable() const { return readable_ || (tls_ && tls_->has_pending()); }
  bool peer_hung_up() const { return hung_up_; }
  Status handshake();

  // Reads what there is and fits. ok: something came; closed: orderly end; blocked: nothing now, no space, or no more
  // in this round.
  Status fill(InBuffer& in);
  // Others are served first: the handler is called again in the next round.
  void yield();

  // Gathers. False (and broken) when the bounded queue is full.
  bool queue(std::string_view data);
  // Sends what was gathered and then `data`; what the socket does not take now is copied and leaves by itself as it
  // drains.
  bool send(std::string_view data);
  bool flush();
  bool drained() const { return out_.bytes() == 0 && (!tls_ || tls_->drained()); }
  // The moment to offer more: the socket is not known to be full, and what was gathered for one write is within bounds.
  bool takes_more() const { return !broken_ && (drained() || (writable_ && out_.bytes() < kBlockBytes)); }
  size_t waiting_bytes() const { return out_.bytes(); }
  bool broken() const { return broken_; }
  // Half-closes after everything was sent (TLS: close_notify first).
  void shut_write();

  const TlsStream* tls() const { return tls_.get(); }
  uint64_t bytes_read() const { return bytes_read_; }
  uint64_t bytes_written() const { return bytes_written_; }
  // What has reached the peer's own socket, TLS and all. Asks the kernel.
  uint64_t bytes_acknowledged() const;
  // From now on close() says "broken" (RST) and throws away what the peer has not taken.
  void reset_on_close();

 private:
  static constexpr size_t kGatherBytes = 4096;  // below this a copy is cheaper than a system call of its own
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
  bool end_seen_ = false;
  bool broken_ = false;
};

}  // namespace tidegate::l7
