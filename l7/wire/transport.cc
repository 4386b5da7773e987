// SPDX-License-Identifier: Apache-2.0
#include "l7/wire/transport.h"

#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>

#include "l7/limits.h"

namespace tidegate::l7 {

bool ProxyTransport::open(UniqueFd fd, IoHandler* handler) {
  if (!loop_.add(fd.get(), EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, handler)) return false;
  fd_ = std::move(fd);
  readable_ = false;
  writable_ = true;
  hung_up_ = gone_ = end_seen_ = broken_ = false;
  return true;
}

void ProxyTransport::start_tls(std::shared_ptr<TlsContext> context, bool server, const std::string& server_name) {
  tls_ = std::make_unique<TlsStream>(std::move(context), fd_.get(), server, server_name);
}

void ProxyTransport::close() {
  if (!fd_) return;
  tls_.reset();
  loop_.remove(fd_.get());
  fd_.reset();
  out_.clear();
}

void ProxyTransport::note(uint32_t events) {
  if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) readable_ = true;
  if (events & (EPOLLOUT | EPOLLHUP | EPOLLERR)) writable_ = true;
  if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) hung_up_ = true;
  if (events & (EPOLLHUP | EPOLLERR)) gone_ = true;
}

ProxyTransport::Status ProxyTransport::handshake() {
  switch (tls_->handshake()) {
    case TlsStatus::ok:
      return Status::ok;
    case TlsStatus::want_read:
    case TlsStatus::want_write:
      return Status::blocked;
    case TlsStatus::closed:
      return Status::closed;
    case TlsStatus::error:
      break;
  }
  return Status::failed;
}

ProxyTransport::Status ProxyTransport::fill(InBuffer& in) {
  if (end_seen_) return Status::closed;
  if (!may_read()) return Status::blocked;
  return tls_ ? fill_tls(in) : fill_plain(in);
}

bool ProxyTransport::may_read() {
  const uint64_t round_ns = loop_.now_ns();
  const bool left = turn_bytes_.left(round_ns, kTurnBytes) > 0 && turn_reads_.left(round_ns, kTurnReads) > 0;
  if (!left && readable()) yield();
  return left;
}

void ProxyTransport::yield() {
  if (fd_) loop_.call_again(fd_.get());
}

ProxyTransport::Status ProxyTransport::fill_plain(InBuffer& in) {
  if (!readable_) return Status::blocked;
  const InBuffer::Space space = in.space();
  if (space.bytes == 0) return Status::blocked;
  for (;;) {
    const ssize_t got = ::recv(fd_.get(), space.data, space.bytes, 0);
    if (got > 0) {
      const auto bytes = static_cast<size_t>(got);
      in.filled(bytes);
      bytes_read_ += bytes;
      turn_bytes_.use(bytes);
      turn_reads_.use(1);
      // A short read has emptied the socket (epoll(7)), unless its end was not read yet.
      if (bytes < space.bytes && !hung_up_) readable_ = false;
      return Status::ok;
    }
    if (got == 0) {
      end_seen_ = true;
      return Status::closed;
    }
    if (errno == EINTR) continue;
    if (errno == EAGAIN) {
      readable_ = false;
      return Status::blocked;
    }
    broken_ = true;
    return Status::failed;
  }
}

ProxyTransport::Status ProxyTransport::fill_tls(InBuffer& in) {
  bool any = false;
  while (readable()) {
    const InBuffer::Space space = in.space();
    if (space.bytes == 0 || (any && !may_read())) break;
    const TlsStream::Io io = tls_->read(space.data, space.bytes);
    turn_reads_.use(1);
    if (io.status == TlsStatus::ok) {
      in.filled(io.bytes);
      bytes_read_ += io.bytes;
      turn_bytes_.use(io.bytes);
      any = true;
      // As with plain sockets, a short read means that the socket is empty, unless its end was not read yet.
      if (tls_->emptied_socket() && !tls_->has_pending() && !hung_up_) readable_ = false;
      continue;
    }
    if (io.status == TlsStatus::closed) {
      end_seen_ = true;
      return any ? Status::ok : Status::closed;
    }
    if (io.status == TlsStatus::error) {
      broken_ = true;
      return any ? Status::ok : Status::failed;
    }
    if (io.status == TlsStatus::want_write) {
      writable_ = false;  // it must answer a handshake message before it can read on
      break;
    }
    readable_ = false;
  }
  return any ? Status::ok : Status::blocked;
}

bool ProxyTransport::queue(std::string_view data) {
  if (!out_.append(data)) broken_ = true;
  return !broken_;
}

bool ProxyTransport::send(std::string_view data) {
  if (broken_) return false;
  if (data.size() < kGatherBytes || !writable_) return queue(data);
  return tls_ ? write_tls(data) : write_plain(data);
}

bool ProxyTransport::flush() {
  if (broken_) return false;
  if (drained() || !writable_) return true;
  return tls_ ? write_tls({}) : write_plain({});
}

bool ProxyTransport::write_plain(std::string_view data) {
  while (out_.bytes() > 0 || !data.empty()) {
    iovec pieces[kUnsentBlocks + 1];
    size_t count = out_.gather(pieces);
    if (!data.empty()) pieces[count++] = {const_cast<char*>(data.data()), data.size()};
    msghdr message{};
    message.msg_iov = pieces;
    message.msg_iovlen = count;
    const ssize_t rc = ::sendmsg(fd_.get(), &message, MSG_NOSIGNAL);
    if (rc < 0) {
      if (errno == EINTR) continue;
      if (errno == EAGAIN) {
        writable_ = false;
        break;
      }
      broken_ = true;
      return false;
    }
    auto sent = static_cast<size_t>(rc);
    bytes_written_ += sent;
    const size_t from_queue = std::min(sent, out_.bytes());
    out_.sent(from_queue);
    data.remove_prefix(sent - from_queue);
  }
  return data.empty() || queue(data);
}

// Several records are sent in few calls of send(2), because each call passes through the whole network stack.
bool ProxyTransport::write_tls(std::string_view data) {
  tls_->cork();
  const bool encrypted = encrypt(data);
  const TlsStatus sent = tls_->uncork();
  if (sent == TlsStatus::want_write) writable_ = false;
  if (!encrypted || sent == TlsStatus::error) {
    broken_ = true;
    return false;
  }
  return data.empty() || queue(data);
}

// Gives the socket the gathered bytes and then `data`, as much as it takes. Returns false if the connection has ended.
bool ProxyTransport::encrypt(std::string_view& data) {
  while (out_.bytes() > 0 || !data.empty()) {
    const bool from_queue = out_.bytes() > 0;
    const std::string_view next = from_queue ? out_.front() : data;
    const TlsStream::Io io = tls_->write(next.data(), next.size());
    if (io.status == TlsStatus::want_write || io.status == TlsStatus::want_read) {
      writable_ = false;
      break;
    }
    if (io.status != TlsStatus::ok) return false;
    bytes_written_ += io.bytes;
    if (from_queue) {
      out_.sent(io.bytes);
    } else {
      data.remove_prefix(io.bytes);
    }
  }
  return true;
}

uint64_t ProxyTransport::bytes_acknowledged() const {
  tcp_info info{};
  socklen_t bytes = sizeof info;
  ::getsockopt(fd_.get(), IPPROTO_TCP, TCP_INFO, &info, &bytes);
  return info.tcpi_bytes_acked;
}

ProxyTransport::FirstBytes ProxyTransport::first_bytes() const {
  if (bytes_read_ > 0) return {.acknowledged = true};
  tcp_info info{};
  socklen_t bytes = sizeof info;
  ::getsockopt(fd_.get(), IPPROTO_TCP, TCP_INFO, &info, &bytes);
  // On a connection that we made, the SYN counts as a byte.
  return {.acknowledged = info.tcpi_bytes_acked > 1,
          .in_flight = info.tcpi_unacked > 0,
          .repeated = info.tcpi_total_retrans};
}

void ProxyTransport::reset_on_close() {
  const struct ::linger hard { 1, 0 };
  ::setsockopt(fd_.get(), SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
}

void ProxyTransport::shut_write() {
  if (!fd_) return;
  flush();
  if (tls_ && !broken_) tls_->send_close_notify();
  ::shutdown(fd_.get(), SHUT_WR);
}

}  // namespace tidegate::l7
