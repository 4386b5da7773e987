// SPDX-License-Identifier: Apache-2.0
// TLS over OpenSSL. Only this file gives access to it. Each worker thread has its own context, because OpenSSL 3.0
// scales badly when threads share an SSL_CTX. A stream object belongs to one thread.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/result.h"

typedef struct ssl_st SSL;
typedef struct ssl_ctx_st SSL_CTX;

namespace tidegate {

struct TlsIdentity {
  std::string certificate_pem;  // leaf first, then intermediates
  std::string key_pem;
};

// What a certificate says about itself, for SNI, expiry warnings and `check`.
struct CertificateInfo {
  std::vector<std::string> names;             // DNS SANs (the CN if there are none), lower case, may start with "*."
  int64_t not_before_s = 0, not_after_s = 0;  // epoch
  std::string subject, issuer;
};
// Parses certificate and key, and verifies that they belong together and that a server can use them.
Result<CertificateInfo> inspect_identity(const TlsIdentity& identity);

// An OCSP answer: the statement of an authority about a certificate. Clients that ask for it get it in the handshake
// (RFC 6066 §8).
struct Staple {
  std::string answer;   // DER
  int64_t until_s = 0;  // epoch; it is not shown after that
};

// A certificate with its key, read once, for any number of contexts of one thread: contexts that share it share
// OpenSSL's reference counts.
class ServerIdentity {
 public:
  static Result<std::shared_ptr<const ServerIdentity>> load(const TlsIdentity& identity);
  ~ServerIdentity();
  // Shown by every context of this identity from the next handshake on; null: none. Call it on the contexts' thread.
  void set_staple(std::shared_ptr<const Staple> staple) const;
  struct Impl;
  const Impl& impl() const { return *impl_; }

 private:
  explicit ServerIdentity(std::unique_ptr<const Impl> impl);
  std::unique_ptr<const Impl> impl_;
};

// Keys for stateless session resumption (RFC 5077), equal on every host of a site. They are derived from the site's
// secret for each time window. So one proxy resumes another's sessions, and no key files need to be copied.
class TicketKeys {
 public:
  static constexpr int64_t kWindowS = 12 * 3600;  // a key issues tickets for one window and is accepted for one more
  // `epoch_s` returns the time; the default is the wall clock.
  explicit TicketKeys(std::string secret, int64_t (*epoch_s)() = wall_clock_s)
      : secret_(std::move(secret)), epoch_s_(epoch_s) {}
  struct Key {
    std::array<uint8_t, 16> name;
    std::array<uint8_t, 32> aes;
    std::array<uint8_t, 32> hmac;
  };
  Key at(int64_t epoch_s) const;
  int64_t now_s() const { return epoch_s_(); }

 private:
  static int64_t wall_clock_s();

  std::string secret_;
  int64_t (*epoch_s_)();
};

struct TlsClientRules;  // core/tls_clients.h

struct TlsServerOptions {
  // The first one serves clients without a matching SNI. The identities of `loaded` come after `identities`.
  std::vector<TlsIdentity> identities;
  std::vector<std::shared_ptr<const ServerIdentity>> loaded;
  std::vector<std::string> alpn;                            // in our order of preference: {"h2", "http/1.1"}
  std::string min_version = "1.2";                          // "1.2" or "1.3"
  std::string ciphers;                                      // for TLS 1.2; empty: our own list
  std::shared_ptr<const TicketKeys> tickets;                // null: no resumption
  std::shared_ptr<const TlsClientRules> clients = nullptr;  // null: clients are not asked for a certificate
};

struct TlsClientOptions {
  std::vector<std::string> alpn;
  bool verify = false;
  std::string ca_pem;  // empty: the system's roots
  // Shown to a server that asks for a certificate; null: none.
  std::shared_ptr<const ServerIdentity> identity = nullptr;
};

class TlsContext {
 public:
  static Result<std::shared_ptr<TlsContext>> server(const TlsServerOptions& options);
  static Result<std::shared_ptr<TlsContext>> client(const TlsClientOptions& options);
  ~TlsContext();
  SSL_CTX* get() const;
  struct Impl;
  const Impl& impl() const { return *impl_; }

 private:
  friend class TlsStream;
  explicit TlsContext(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

enum class TlsStatus : uint8_t {
  ok,          // made progress; `bytes` says how much
  want_read,   // wait for EPOLLIN
  want_write,  // wait for EPOLLOUT
  closed,      // orderly close_notify
  error,       // the connection is unusable; last_error() says why
};

// One TLS connection over a non-blocking socket, which it borrows.
class TlsStream {
 public:
  // `server_name` is for clients: it is sent as SNI and, if the context verifies, the certificate must match it.
  TlsStream(std::shared_ptr<TlsContext> context, int fd, bool server, const std::string& server_name = {});
  ~TlsStream();
  TlsStream(const TlsStream&) = delete;
  TlsStream& operator=(const TlsStream&) = delete;

  // For clients, before handshake(): offers only this protocol by ALPN (RFC 7301), and not the protocols of the
  // context.
  void offer(const std::string& protocol);
  TlsStatus handshake();
  struct Io {
    TlsStatus status;
    size_t bytes = 0;
  };
  Io read(char* buffer, size_t bytes);
  // After a short write, the next call must repeat the same bytes (the buffer may have moved).
  Io write(const char* buffer, size_t bytes);
  // Between cork() and uncork() records are collected and sent in a few large sends. Both calls must come from the same
  // thread, and it must not wait between them. uncork() and flush() return want_write if the socket did not take
  // everything; the rest is kept here and flush() sends it.
  void cork();
  TlsStatus uncork();
  TlsStatus flush();
  bool drained() const { return wire_.unsent.empty(); }
  // True if read() may return more without new bytes from the socket. False if only the beginning of a record is here.
  bool has_pending() const { return pending_; }
  // True if the last read() took everything that the socket held at that moment.
  bool emptied_socket() const { return wire_.emptied; }
  void send_close_notify();

  std::string_view alpn() const;         // empty: none was negotiated
  std::string_view server_name() const;  // SNI
  std::string_view version() const;      // "TLSv1.3"
  std::string_view cipher() const;
  bool resumed() const;
  const std::string& last_error() const { return last_error_; }
  // Why the peer's certificate was refused, in OpenSSL's words; empty if it was not, or is not checked.
  std::string_view refused_certificate() const;

 private:
  friend struct TlsWire;
  // The buffer between OpenSSL and the socket. It is empty, except for bytes that a full socket did not take.
  struct Wire {
    int fd;
    bool corked = false;
    bool emptied = false;
    std::string unsent;
  };
  static void count_handshake_step(const SSL* ssl, int where, int value);
  TlsStatus classify(int rc);
  TlsStatus classify_sent(bool sent_all);
  std::shared_ptr<TlsContext> context_;
  Wire wire_;
  SSL* ssl_;
  bool pending_ = false;
  bool established_ = false;         // the first handshake is complete
  bool no_certificate_ = false;      // the handshake failed because the client has shown none
  uint32_t steps_without_data_ = 0;  // later handshake messages since the last byte of content
  std::string last_error_;
};

}  // namespace tidegate
