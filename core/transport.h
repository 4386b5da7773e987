// SPDX-License-Identifier: Apache-2.0
// Transport: bytes over one connected, non-blocking stream socket, plain or TLS. It owns the socket; the loop's
// registration is the owner's business.
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
  // `tls` is over this fd. read() and write() complete its handshake on the way.
  Transport(UniqueFd fd, std::unique_ptr<TlsStream> tls) : fd_(std::move(fd)), tls_(std::move(tls)) {}

  // ok at once without TLS.
  IoStatus handshake();
  Io read(char* buffer, size_t bytes);
  Io write(const char* buffer, size_t bytes);
  // Bytes wait inside, of which the socket's readiness says nothing.
  bool has_pending() const { return tls_ && tls_->has_pending(); }
  bool is_tls() const { return tls_ != nullptr; }
  void shutdown_write();
  void close();
  int fd() const { return fd_.get(); }
  // Why the last call said IoStatus::error.
  const std::string& last_error() const { return tls_ ? tls_->last_error() : last_error_; }

 private:
  UniqueFd fd_;
  std::unique_ptr<TlsStream> tls_;  // borrows fd_
  std::string last_error_;
};

}  // namespace tidegate
