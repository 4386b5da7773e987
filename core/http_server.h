// SPDX-License-Identifier: Apache-2.0
// HttpServer: a small HTTP/1.1 server on one event loop, for the admin sockets, the REST API, HTTPDNS and DoH. It is
// not the proxy. It has unix and TCP listeners, keep-alive, pipelining in order, bodies up to a limit, and deferred and
// streamed answers.
//
// Threads: everything runs on the loop's thread.
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
  std::optional<Endpoint> peer;  // nothing for a unix socket
  uint32_t peer_uid = 0;         // for a unix socket (SO_PEERCRED)

  std::string_view header(std::string_view lower_name) const;  // the first value, or empty
  std::optional<std::string> parameter(std::string_view name) const { return http1::query_parameter(query, name); }
};

struct HttpResponse {
  int status = 200;
  std::vector<std::pair<std::string, std::string>> headers;
  std::string body;

  std::string_view header(std::string_view name) const;  // the first value, or empty; case does not matter

  static HttpResponse text(int status, std::string body, std::string content_type = "text/plain; charset=utf-8");
  static HttpResponse json(int status, std::string body) { return text(status, std::move(body), "application/json"); }
  // application/problem+json (RFC 9457)
  static HttpResponse problem(int status, std::string_view title, std::string_view detail);
};

// The handle for answering one request. Keep the shared_ptr to answer later. If the last one is destroyed without an
// answer, the client gets 500. If that happens in the middle of a stream, the connection is cut (the client sees a body
// without its end). It may outlive the connection and the server, but not the loop; bytes that are sent after that are
// dropped.
class HttpExchange {
 public:
  virtual ~HttpExchange() = default;
  virtual const HttpRequest& request() const = 0;
  // Takes the body out of request(), for a handler that keeps a large one.
  virtual std::string take_body() = 0;
  // Sets Content-Length, Date and Connection itself. A header that cannot be sent safely turns the answer into 500.
  virtual void respond(HttpResponse response) = 0;
  // A response of unknown length (server-sent events, NDJSON): call begin_stream, then write() for each piece, then
  // end_stream. If the server is at its limit of streams, the client gets 503 and every write() returns false.
  virtual void begin_stream(int status, std::vector<std::pair<std::string, std::string>> headers) = 0;
  // Returns false if the peer is gone or did not read `max_stream_backlog` bytes. Then the stream is closed.
  virtual bool write(std::string_view bytes) = 0;
  // Like write(), but does not copy a large body.
  virtual bool write_shared(std::shared_ptr<const std::string> bytes) = 0;
  virtual void end_stream() = 0;
  // Calls `fn` once if the connection closes before the response or stream has ended. The call comes at the end of the
  // loop's iteration, never from inside a call of this object, and never after its last shared_ptr is gone. A peer that
  // only stops sending (half-close) still gets a pending response; for a stream it counts as gone.
  virtual void on_close(std::function<void()> fn) = 0;
};
using HttpExchangePtr = std::shared_ptr<HttpExchange>;
// If it throws, the exception is logged and the request is answered 500.
using HttpHandler = std::function<void(HttpExchangePtr)>;

struct HttpServerLimits {
  http1::Limits head;
  size_t body_bytes = 16 << 20;
  // For TCP. At the limit the connection that is idle longest makes room. If none is idle, the new one is answered 503.
  size_t connections = kHttpConnections;
  // Part of these, for one address (IPv6: one /64); 0: no limit.
  size_t connections_per_address = kHttpConnectionsPerAddress;
  std::vector<Cidr> trusted_addresses;  // proxies: no limit per address
  // Unix sockets have their own places, so a crowd at the TCP port does not lock the operator out.
  size_t local_connections = kHttpLocalConnections;
  size_t owner_connections = kHttpOwnerConnections;  // part of these, only for root and the process's own user
  // Streamed answers at the same time, over TCP and over unix sockets. One more is answered 503.
  size_t streams = kHttpStreams;
  size_t local_streams = kHttpLocalStreams;
  size_t max_stream_backlog = 64 << 20;
  uint64_t idle_ms = 60'000;     // between requests, and without progress while an answer is sent
  uint64_t request_ms = 10'000;  // to receive one complete request
};

class HttpServer {
 public:
  HttpServer(EventLoop& loop, HttpHandler handler, HttpServerLimits limits = {});
  // Closes every connection. Safe from inside a handler and while exchanges exist.
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  // Replaces a stale socket file, but not one that a live process listens on. The new file has `mode`.
  Result<void> listen_unix(const std::string& path, unsigned mode = 0660);
  // As listen_unix, but takes the path from a process that listens there. That process gets no new connections.
  Result<void> take_unix(const std::string& path, unsigned mode = 0660);
  Result<void> listen_tcp(const Endpoint& endpoint);
  // Listens on a bound socket.
  Result<void> listen_on(UniqueFd bound);
  // `context` must be a server context (core/tls.h).
  Result<void> listen_tls(const Endpoint& endpoint, std::shared_ptr<TlsContext> context);
  // Applies to new connections on every TLS listener.
  void replace_tls(const std::shared_ptr<TlsContext>& context);
  // The endpoint of the last TCP listener (tests bind port 0).
  Endpoint tcp_endpoint() const;
  // The TCP sockets that listen, in the order in which they were opened; borrowed.
  std::vector<int> tcp_sockets() const;
  void stop_listening();  // existing connections continue
  // Existing connections end with their next answer, or when they are idle for too long.
  void wind_down();
  size_t connections() const;

 private:
  Result<void> bind_unix(const std::string& at, const std::string& path, unsigned mode);
  Result<void> listen_inet(const Endpoint& endpoint, std::shared_ptr<TlsContext> tls);
  Result<void> listen_bound(UniqueFd bound, const Endpoint& endpoint, std::shared_ptr<TlsContext> tls);
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tidegate
