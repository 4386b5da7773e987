// SPDX-License-Identifier: Apache-2.0
#include "core/transport.h"

#include <sys/socket.h>

#include <cerrno>
#include <cstring>

namespace tidegate {

IoStatus Transport::handshake() { return tls_ ? tls_->handshake() : IoStatus::ok; }

Transport::Io Transport::read(char* buffer, size_t bytes) {
  if (tls_) return tls_->read(buffer, bytes);
  ssize_t got;
  do got = ::recv(fd_.get(), buffer, bytes, 0);
  while (got < 0 && errno == EINTR);
  if (got > 0) return {IoStatus::ok, static_cast<size_t>(got)};
  if (got == 0) return {IoStatus::closed};
  if (errno == EAGAIN || errno == EWOULDBLOCK) return {IoStatus::want_read};
  last_error_ = std::strerror(errno);
  return {IoStatus::error};
}

Transport::Io Transport::write(const char* buffer, size_t bytes) {
  if (tls_) return tls_->write(buffer, bytes);
  ssize_t sent;
  do sent = ::send(fd_.get(), buffer, bytes, MSG_NOSIGNAL);
  while (sent < 0 && errno == EINTR);
  if (sent >= 0) return {IoStatus::ok, static_cast<size_t>(sent)};
  if (errno == EAGAIN || errno == EWOULDBLOCK) return {IoStatus::want_write};
  last_error_ = std::strerror(errno);
  return {IoStatus::error};
}

void Transport::shutdown_write() {
  if (tls_) tls_->send_close_notify();
  ::shutdown(fd_.get(), SHUT_WR);
}

void Transport::close() {
  if (tls_) tls_->send_close_notify();
  tls_.reset();
  fd_.reset();
}

}  // namespace tidegate
