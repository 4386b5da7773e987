// SPDX-License-Identifier: Apache-2.0
// Transport: bytes over one connected, non-blocking stream socket, plain or TLS. It owns the socket. The owner of the
// Transport registers the socket with the loop.
#pragma once

#include <cstddef>
#include <memory>
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
  // `tls` must use this fd. read() and write() also complete its handshake.
  Transport(UniqueFd fd, std::unique_ptr<TlsStream> tls) : fd_(std::move(fd)), tls_(std::move(tls)) {}

  // Returns ok at once without TLS.
  IoStatus handshake();
  Io read(char* buffer, size_t bytes);
  Io write(const char* buffer, size_t bytes);
  // True if received bytes wait inside TLS. The socket's readiness does not show them.
  bool has_pending() const { return tls_ && tls_->has_pending(); }
  bool is_tls() const { return tls_ != nullptr; }
  void shutdown_write();
  void close();
  int fd() const { return fd_.get(); }
  // The reason after the last call returned IoStatus::error.
  const std::string& last_error() const { return tls_ ? tls_->last_error() : last_error_; }

 private:
  UniqueFd fd_;
  std::unique_ptr<TlsStream> tls_;  // borrows fd_
  std::string last_error_;
};

}  // namespace tidegate
