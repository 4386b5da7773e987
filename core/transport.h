// Transport: bytes over one connected, non-blocking stream socket. It owns the socket; the loop's registration is the
// owner's business.
#pragma once

#include <cstddef>
#include <string>

#include "core/fd.h"
#include "core/tls.h"

namespace tidegate {

using IoStatus = TlsStatus;

class Transport {
 public:
  using Io = TlsStream::Io;

  Transport() = default;
  explicit Transport(UniqueFd fd) : fd_(std::move(fd)) {}

  Io read(char* buffer, size_t bytes);
  Io write(const char* buffer, size_t bytes);
  void shutdown_write();
  void close() { fd_.reset(); }
  int fd() const { return fd_.get(); }
  // Why the last call said IoStatus::error.
  const std::string& last_error() const { return last_error_; }

 private:
  UniqueFd fd_;
  std::string last_error_;
};

}  // namespace tidegate
