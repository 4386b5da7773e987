#include "core/transport.h"

#include <sys/socket.h>

#include <cerrno>
#include <cstring>

namespace tidegate {

Transport::Io Transport::read(char* buffer, size_t bytes) {
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
  ssize_t sent;
  do sent = ::send(fd_.get(), buffer, bytes, MSG_NOSIGNAL);
  while (sent < 0 && errno == EINTR);
  if (sent >= 0) return {IoStatus::ok, static_cast<size_t>(sent)};
  if (errno == EAGAIN || errno == EWOULDBLOCK) return {IoStatus::want_write};
  last_error_ = std::strerror(errno);
  return {IoStatus::error};
}

void Transport::shutdown_write() { ::shutdown(fd_.get(), SHUT_WR); }

}  // namespace tidegate
