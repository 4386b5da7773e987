// SPDX-License-Identifier: Apache-2.0
// HttpServer: a small HTTP/1.1 server on one event loop, for the admin sockets, the REST API, HTTPDNS and DoH.
// Not the proxy. Unix and TCP listeners, keep-alive, pipelining in order, bodies up to a bound, deferred and streamed
// answers.
//
// Threads: everything on the loop's thread.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/event_loop.h"
#include "core/http1.h"
#include "core/ip.h"
#include "core/limits.h"
#include "core/result.h"
#include "core/tls.h"

namespace tidegate {

struct HttpRequest {
  std::string method;
  std::string target;
  std::string path;
  std::string query;
  std::string authority;
  std::vector<std::pair<std::string, std::string>> headers;  // names in lower case
  std::string body;
  std::optional<Endpoint> peer;  // nothing on a unix socket
  uint32_t peer_uid = 0;         // on a unix socket (SO_PEERCRED)

  std::string_view header(std::string_view lower_name) const;  // first value or empty
  std::optional<std::string> parameter(std::string_view name) const { return http1::query_parameter(query, name); }
};

struct HttpResponse {
  int status = 200;
  std::vector<std::pair<std::string, std::string>> headers;
  std::string body;

  std::string_view header(std::string_view name) const;  // first value or empty; any case

  static HttpResponse text(int status, std::string body, std::string content_type = "text/plain; charset=utf-8");
  static HttpResponse json(int status, std::string body) { return text(status, std::move(body), "application/json"); }
  // application/problem+json (RFC 9457)
  static HttpResponse problem(int status, std::string_view title, std::string_view detail);
};

// One request's way to answer. Keep the shared_ptr to answer later; dropping the last one without an answer sends 500,
// dropping it in the middle of a stream cuts the connection (the client sees a body without its end). It may outlive
// connection and server, not the loop; what is then sent goes nowhere.
class HttpExchange {
 public:
  virtual ~HttpExchange() = default;
  virtual const HttpRequest& request() const = 0;
  // Content-Length, Date and Connection are set here. A header that could not be sent safely turns the answer into 500.
  virtual void respond(HttpResponse response) = 0;
  // A response of unknown length (server-sent events, NDJSON): begin, then write as things happen, then end. When the
  // server has as many streams as it may, the client gets 503 and every write() is false.
  virtual void begin_stream(int status, std::vector<std::pair<std::string, std::string>> headers) = 0;
  // False when the peer is gone or has let `max_stream_backlog` bytes pile up; the stream is then closed.
  virtual bool write(std::string_view bytes) = 0;
  virtual void end_stream() = 0;
  // Called once when the connection closes before the response or stream has ended: at the end of the loop's
  // iteration, never from inside a call of this object, and not after its last shared_ptr is gone. A peer that only
  // stops sending (half-close) still gets a pending response; a stream takes it for gone.
  virtual void on_close(std::function<void()> fn) = 0;
};
using HttpExchangePtr = std::shared_ptr<HttpExchange>;
// What it throws is logged and answered 500.
using HttpHandler = std::function<void(HttpExchangePtr)>;

struct HttpServerLimits {
  http1::Limits head;
  size_t body_bytes = 16 << 20;
  // Over TCP. At the bound the connection idle longest makes room; where nobody is idle the newcomer is answered 503.
  size_t connections = kHttpConnections;
  size_t connections_per_address =
      kHttpConnectionsPerAddress;       // of these, for one address (IPv6: one /64); 0: not counted
  std::vector<Cidr> trusted_addresses;  // proxies: not counted by address
  // Over unix sockets, which have places of their own: no crowd at the TCP port locks the operator out.
  size_t local_connections = kHttpLocalConnections;
  size_t owner_connections = kHttpOwnerConnections;  // of these, for root and the process's own user alone
  // Streamed answers under way at once, over TCP and over unix sockets; one more is answered 503.
  size_t streams = kHttpStreams;
  size_t local_streams = kHttpLocalStreams;
  size_t max_stream_backlog = 64 << 20;
  uint64_t idle_ms = 60'000;     // between requests, and without progress while an answer is being sent
  uint64_t request_ms = 10'000;  // to receive one whole request
};

class HttpServer {
 public:
  HttpServer(EventLoop& loop, HttpHandler handler, HttpServerLimits limits = {});
  // Closes every connection; safe from inside a handler and with exchanges alive.
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  // A stale socket file is replaced, one that a living process listens on is not; the new one has `mode`.
  Result<void> listen_unix(const std::string& path, unsigned mode = 0660);
  Result<void> listen_tcp(const Endpoint& endpoint, bool reuse_port = false);
  // `context` is a server's (core/tls.h).
  Result<void> listen_tls(const Endpoint& endpoint, std::shared_ptr<TlsContext> context);
  // For the connections that come from now on, on every listener that speaks TLS.
  void replace_tls(const std::shared_ptr<TlsContext>& context);
  // The bound endpoint of the last TCP listener (tests bind port 0).
  Endpoint tcp_endpoint() const;
  void stop_listening();  // connections live on

 private:
  Result<void> listen_inet(const Endpoint& endpoint, bool reuse_port, std::shared_ptr<TlsContext> tls);
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tidegate
