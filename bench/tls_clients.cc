// SPDX-License-Identifier: Apache-2.0
// A TLS load generator, because no packaged one fits: TLS 1.3 handshakes one after another, full or resumed, and large
// numbers of idle connections.
//
//  tls_clients handshakes ADDRESS:PORT NAME SECONDS [resume]
//    prints: count, seconds, p50_us, p99_us
//  tls_clients idle ADDRESS:PORT NAME COUNT
//    opens COUNT connections, prints "ready", and holds them until stdin ends
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "core/clock.h"
#include "core/ip.h"

namespace {

using tidegate::Endpoint;
using tidegate::monotonic_ns;

SSL_SESSION* g_ticket = nullptr;

int keep_ticket(SSL*, SSL_SESSION* session) {
  if (g_ticket != nullptr) SSL_SESSION_free(g_ticket);
  g_ticket = session;
  return 1;  // the session now belongs to us
}

// Returns one connected client after its handshake, or null after it printed why not.
SSL* open_client(SSL_CTX* context, const Endpoint& server, const char* name, SSL_SESSION* resume) {
  sockaddr_storage storage;
  const socklen_t length = server.to_sockaddr(storage);
  const int fd = ::socket(storage.ss_family, SOCK_STREAM, 0);
  if (fd < 0 || ::connect(fd, reinterpret_cast<sockaddr*>(&storage), length) != 0) {
    std::perror("tls_clients: connect");
    return nullptr;
  }
  SSL* ssl = SSL_new(context);
  SSL_set_fd(ssl, fd);
  SSL_ctrl(ssl, SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name, const_cast<char*>(name));
  if (resume != nullptr) {
    // A copy, because a session object can be resumed only once under TLS 1.3.
    SSL_SESSION* copy = SSL_SESSION_dup(resume);
    SSL_set_session(ssl, copy);
    SSL_SESSION_free(copy);
  }
  if (SSL_connect(ssl) != 1) {
    std::fprintf(stderr, "tls_clients: handshake failed\n");
    ERR_print_errors_fp(stderr);
    return nullptr;
  }
  return ssl;
}

void close_client(SSL* ssl) {
  const int fd = SSL_get_fd(ssl);
  // Resets instead of lingering, so that the generator does not run out of ports.
  const linger now{1, 0};
  ::setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
  SSL_set_shutdown(ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);  // otherwise OpenSSL marks the session as broken
  SSL_free(ssl);
  ::close(fd);
}

// Sends a request and reads the first bytes of the answer: the tickets of TLS 1.3 arrive with them.
void exchange(SSL* ssl, const char* name) {
  const std::string request = std::string("GET / HTTP/1.1\r\nHost: ") + name + "\r\n\r\n";
  SSL_write(ssl, request.data(), static_cast<int>(request.size()));
  char buffer[4096];
  SSL_read(ssl, buffer, sizeof buffer);
}

int handshakes(SSL_CTX* context, const Endpoint& server, const char* name, uint64_t seconds, bool resume) {
  if (resume) {
    SSL* first = open_client(context, server, name, nullptr);
    if (first == nullptr) return 1;
    exchange(first, name);
    close_client(first);
    if (g_ticket == nullptr) {
      std::fprintf(stderr, "tls_clients: the server gave no ticket\n");
      return 1;
    }
  }
  std::vector<uint64_t> durations_us;
  const uint64_t began_ns = monotonic_ns();
  const uint64_t until_ns = began_ns + seconds * tidegate::kNsPerS;
  uint64_t now_ns = began_ns;
  while (now_ns < until_ns) {
    SSL* ssl = open_client(context, server, name, resume ? g_ticket : nullptr);
    if (ssl == nullptr) return 1;
    if (resume && SSL_session_reused(ssl) != 1) {
      std::fprintf(stderr, "tls_clients: the server did not resume, after %zu times\n", durations_us.size());
      return 1;
    }
    close_client(ssl);
    const uint64_t ended_ns = monotonic_ns();
    durations_us.push_back((ended_ns - now_ns) / 1000);
    now_ns = ended_ns;
  }
  std::sort(durations_us.begin(), durations_us.end());
  std::printf("%zu %.3f %lu %lu\n", durations_us.size(), static_cast<double>(now_ns - began_ns) / 1e9,
              durations_us[durations_us.size() / 2], durations_us[durations_us.size() * 99 / 100]);
  return 0;
}

int idle(SSL_CTX* context, const Endpoint& server, const char* name, size_t count) {
  std::vector<SSL*> crowd;
  for (size_t i = 0; i < count; ++i) {
    SSL* ssl = open_client(context, server, name, nullptr);
    if (ssl == nullptr) return 1;
    exchange(ssl, name);
    crowd.push_back(ssl);
  }
  std::puts("ready");
  std::fflush(stdout);
  while (std::getchar() != EOF) {
  }
  for (SSL* ssl : crowd) close_client(ssl);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 5) {
    std::fprintf(stderr,
                 "usage: tls_clients handshakes ADDRESS:PORT NAME SECONDS [resume]\n       tls_clients idle "
                 "ADDRESS:PORT NAME COUNT\n");
    return 2;
  }
  const auto server = Endpoint::parse(argv[2]);
  if (!server) {
    std::fprintf(stderr, "tls_clients: '%s' is not ADDRESS:PORT\n", argv[2]);
    return 2;
  }
  SSL_CTX* context = SSL_CTX_new(TLS_client_method());
  SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION);
  SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
  SSL_CTX_sess_set_new_cb(context, keep_ticket);
  const auto number = static_cast<uint64_t>(std::atoll(argv[4]));
  const int status = std::strcmp(argv[1], "idle") == 0 ? idle(context, *server, argv[3], number)
                                                       : handshakes(context, *server, argv[3], number, argc > 5);
  if (g_ticket != nullptr) SSL_SESSION_free(g_ticket);
  SSL_CTX_free(context);
  return status;
}
