// SPDX-License-Identifier: Apache-2.0
// TlsStream: one connection. It uses a BIO of our own, because OpenSSL's raises SIGPIPE when the peer is gone.
#include <arpa/inet.h>
#include <sys/socket.h>

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <utility>

#include "core/ip.h"
#include "core/limits.h"
#include "core/tls_context.h"
#include "core/tls_peer.h"

namespace tidegate {

// The side of the BIO that faces the socket.
struct TlsWire {
  static constexpr size_t kCorkBytes = 128 * 1024;
  // The collected records of the one corked stream of this thread.
  struct Cork {
    std::unique_ptr<char[]> bytes{new char[kCorkBytes]};
    size_t used = 0;
  };
  static Cork& cork() {
    thread_local Cork made;
    return made;
  }

  static SSL* ssl(const TlsStream& stream) { return stream.ssl_; }
  static bool no_certificate(const TlsStream& stream) { return stream.no_certificate_; }
  static TlsStream::Wire& of(BIO* bio) { return *static_cast<TlsStream::Wire*>(BIO_get_data(bio)); }

  // Sends as much as the socket takes. `bytes` becomes the unsent rest. Returns false with errno set: EAGAIN, or the
  // connection is over.
  static bool send_all(int fd, std::string_view& bytes) {
    while (!bytes.empty()) {
      const ssize_t sent = ::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent < 0 && errno == EINTR) continue;
      if (sent < 0) return false;
      bytes.remove_prefix(static_cast<size_t>(sent));
    }
    return true;
  }

  static bool send_unsent(TlsStream::Wire& wire) {
    std::string_view rest = wire.unsent;
    const bool all = send_all(wire.fd, rest);
    wire.unsent.erase(0, wire.unsent.size() - rest.size());
    if (all) wire.unsent = {};  // frees the memory too: few connections ever fill their socket
    return all;
  }

  static bool send_cork(TlsStream::Wire& wire) {
    Cork& gathered = cork();
    std::string_view rest(gathered.bytes.get(), gathered.used);
    gathered.used = 0;
    if (send_all(wire.fd, rest)) return true;
    if (errno == EAGAIN) wire.unsent.append(rest);
    return false;
  }

  // Returns false with errno set. All bytes are sent in the order in which OpenSSL wrote them.
  static bool write(TlsStream::Wire& wire, std::string_view bytes, size_t& written) {
    if (!wire.unsent.empty() && !send_unsent(wire)) return false;
    if (!wire.corked) {
      const ssize_t sent = ::send(wire.fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      written = sent > 0 ? static_cast<size_t>(sent) : 0;
      return sent >= 0;
    }
    Cork& gathered = cork();
    if (gathered.used == kCorkBytes && !send_cork(wire)) return false;
    written = std::min(bytes.size(), kCorkBytes - gathered.used);
    std::memcpy(gathered.bytes.get() + gathered.used, bytes.data(), written);
    gathered.used += written;
    return true;
  }
};

namespace {

int bio_write(BIO* bio, const char* bytes, size_t size, size_t* written) {
  BIO_clear_retry_flags(bio);
  if (TlsWire::write(TlsWire::of(bio), {bytes, size}, *written)) return 1;
  if (errno == EAGAIN || errno == EINTR) BIO_set_retry_write(bio);
  return 0;
}

int bio_read(BIO* bio, char* bytes, size_t size, size_t* read) {
  BIO_clear_retry_flags(bio);
  auto& wire = TlsWire::of(bio);
  const ssize_t got = ::recv(wire.fd, bytes, size, 0);
  if (got > 0) {
    *read = static_cast<size_t>(got);
    wire.emptied = *read < size;
    return 1;
  }
  if (got == 0) BIO_set_flags(bio, BIO_FLAGS_IN_EOF);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) BIO_set_retry_read(bio);
  return 0;
}

long bio_ctrl(BIO* bio, int command, long, void*) {
  if (command == BIO_CTRL_FLUSH) return 1;
  if (command == BIO_CTRL_EOF) return BIO_test_flags(bio, BIO_FLAGS_IN_EOF) != 0 ? 1 : 0;
  return 0;
}

BIO_METHOD* socket_method() {
  static BIO_METHOD* const method = [] {
    BIO_METHOD* made = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "tidegate socket");
    BIO_meth_set_write_ex(made, bio_write);
    BIO_meth_set_read_ex(made, bio_read);
    BIO_meth_set_ctrl(made, bio_ctrl);
    return made;
  }();
  return method;
}

// SNI can carry only names (RFC 6066 §3). An address in a certificate is compared as an address.
void expect_peer(SSL* ssl, const std::string& server_name, bool verifies) {
  if (server_name.empty()) return;
  const bool is_address = IpAddress::parse(server_name).has_value();
  if (!is_address) {  // does what the macro SSL_set_tlsext_host_name does, without its old-style cast
    std::string name = server_name;
    SSL_ctrl(ssl, SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name, name.data());
  }
  if (!verifies) return;
  if (is_address) {
    X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), server_name.c_str());
  } else {
    SSL_set1_host(ssl, server_name.c_str());
  }
}

}  // namespace

TlsStream::TlsStream(std::shared_ptr<TlsContext> context, int fd, bool server, const std::string& server_name)
    : context_(std::move(context)), wire_{fd, false, false, {}}, ssl_(SSL_new(context_->get())) {
  assert(ssl_ != nullptr);
  BIO* bio = BIO_new(socket_method());
  assert(bio != nullptr);
  BIO_set_data(bio, &wire_);
  BIO_set_init(bio, 1);
  SSL_set_bio(ssl_, bio, bio);
  SSL_set_app_data(ssl_, this);
  SSL_set_info_callback(ssl_, count_handshake_step);
  if (server) {
    SSL_set_accept_state(ssl_);
  } else {
    SSL_set_connect_state(ssl_);
    expect_peer(ssl_, server_name, context_->impl_->verifies);
  }
}

TlsStream::~TlsStream() { SSL_free(ssl_); }

// KeyUpdate and NewSessionTicket may follow the handshake (RFC 8446 §4.6). Each one costs a derivation of keys, and
// SSL_read goes on to the next one until content comes. So the peer could keep this thread busy as long as it likes.
// This ends such a read as if the peer had closed; read() then says what happened.
void TlsStream::count_handshake_step(const SSL* ssl, int where, int) {
  auto* stream = static_cast<TlsStream*>(SSL_get_app_data(ssl));
  if ((where & SSL_CB_LOOP) == 0 || !stream->established_) return;
  if (++stream->steps_without_data_ > kTlsStepsWithoutData) SSL_set_shutdown(stream->ssl_, SSL_RECEIVED_SHUTDOWN);
}

TlsStatus TlsStream::classify(int rc) {
  switch (SSL_get_error(ssl_, rc)) {
    case SSL_ERROR_NONE:
      return TlsStatus::ok;
    case SSL_ERROR_WANT_READ:
      return TlsStatus::want_read;
    case SSL_ERROR_WANT_WRITE:
      return TlsStatus::want_write;
    case SSL_ERROR_ZERO_RETURN:
      return TlsStatus::closed;
    case SSL_ERROR_SYSCALL:
      last_error_ = errno != 0 ? std::strerror(errno) : "the peer closed the connection";
      ERR_clear_error();
      return TlsStatus::error;
    default: {
      const long verified = SSL_get_verify_result(ssl_);
      no_certificate_ = ERR_GET_REASON(ERR_peek_error()) == SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE;
      last_error_ = take_openssl_error();
      if (verified != X509_V_OK) last_error_ += std::string(": ") + X509_verify_cert_error_string(verified);
      return TlsStatus::error;
    }
  }
}

void TlsStream::offer(const std::string& protocol) {
  std::string wire(1, static_cast<char>(protocol.size()));
  wire += protocol;
  SSL_set_alpn_protos(ssl_, reinterpret_cast<const unsigned char*>(wire.data()), static_cast<unsigned>(wire.size()));
}

// Before each call OpenSSL's error queue must be empty and errno must be 0; otherwise an old error looks like a new
// one.
TlsStatus TlsStream::handshake() {
  ERR_clear_error();
  errno = 0;
  const int rc = SSL_do_handshake(ssl_);
  pending_ = rc == 1 && SSL_has_pending(ssl_) == 1;  // the first request may have come with the handshake
  established_ = rc == 1;
  return classify(rc);
}

TlsStream::Io TlsStream::read(char* buffer, size_t bytes) {
  ERR_clear_error();
  errno = 0;
  size_t got = 0;
  wire_.emptied = false;
  const int rc = SSL_read_ex(ssl_, buffer, bytes, &got);
  // If OpenSSL asks for more, it holds only a part of a record, and only the socket can bring the rest.
  pending_ = rc == 1 && SSL_has_pending(ssl_) == 1;
  if (rc == 1) steps_without_data_ = 0;
  if (steps_without_data_ > kTlsStepsWithoutData) {
    last_error_ = "the peer sends handshake messages and no content";
    return {TlsStatus::error, 0};
  }
  return {rc == 1 ? TlsStatus::ok : classify(rc), got};
}

TlsStream::Io TlsStream::write(const char* buffer, size_t bytes) {
  ERR_clear_error();
  errno = 0;
  size_t sent = 0;
  const int rc = SSL_write_ex(ssl_, buffer, bytes, &sent);
  return {rc == 1 ? TlsStatus::ok : classify(rc), sent};
}

void TlsStream::cork() {
  assert(TlsWire::cork().used == 0);
  wire_.corked = true;
}

TlsStatus TlsStream::uncork() {
  wire_.corked = false;
  // Bytes that could not be sent earlier are sent first.
  if (!wire_.unsent.empty()) {
    TlsWire::Cork& gathered = TlsWire::cork();
    wire_.unsent.append(gathered.bytes.get(), std::exchange(gathered.used, 0));
    return flush();
  }
  return classify_sent(TlsWire::send_cork(wire_));
}

TlsStatus TlsStream::flush() {
  if (wire_.unsent.empty()) return TlsStatus::ok;
  return classify_sent(TlsWire::send_unsent(wire_));
}

TlsStatus TlsStream::classify_sent(bool sent_all) {
  if (sent_all) return TlsStatus::ok;
  if (errno == EAGAIN) return TlsStatus::want_write;
  last_error_ = std::strerror(errno);
  return TlsStatus::error;
}

void TlsStream::send_close_notify() {
  // SSL_shutdown(3): not allowed before the handshake is complete or after an error.
  if (SSL_in_init(ssl_) || !last_error_.empty()) return;
  if ((SSL_get_shutdown(ssl_) & SSL_SENT_SHUTDOWN) != 0) return;
  ERR_clear_error();
  SSL_shutdown(ssl_);
  ERR_clear_error();
}

std::optional<int64_t> peer_not_after_s(const TlsStream& stream) {
  const X509* const certificate = SSL_get0_peer_certificate(TlsWire::ssl(stream));
  tm end{};
  if (certificate == nullptr || ASN1_TIME_to_tm(X509_get0_notAfter(certificate), &end) != 1) return std::nullopt;
  return ::timegm(&end);
}

SSL* ssl_of(const TlsStream& stream) { return TlsWire::ssl(stream); }
bool showed_no_certificate(const TlsStream& stream) { return TlsWire::no_certificate(stream); }

std::string_view TlsStream::refused_certificate() const {
  const long verified = SSL_get_verify_result(ssl_);
  if (!context_->impl_->verifies || verified == X509_V_OK) return {};
  return X509_verify_cert_error_string(verified);
}

std::string_view TlsStream::alpn() const {
  const unsigned char* name = nullptr;
  unsigned bytes = 0;
  SSL_get0_alpn_selected(ssl_, &name, &bytes);
  return {reinterpret_cast<const char*>(name), bytes};
}

std::string_view TlsStream::server_name() const {
  const char* name = SSL_get_servername(ssl_, TLSEXT_NAMETYPE_host_name);
  return name != nullptr ? std::string_view(name) : std::string_view();
}

std::string_view TlsStream::version() const { return SSL_get_version(ssl_); }
std::string_view TlsStream::cipher() const { return SSL_get_cipher_name(ssl_); }
bool TlsStream::resumed() const { return SSL_session_reused(ssl_) == 1; }

}  // namespace tidegate
