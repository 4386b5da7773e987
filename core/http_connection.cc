// SPDX-License-Identifier: Apache-2.0
#include "core/http_connection.h"

#include <fmt/format.h>

#include <ctime>
#include <exception>

#include "core/clock.h"
#include "core/limits.h"
#include "core/log.h"

namespace tidegate {
namespace {

constexpr size_t kReadBytes = 16 * 1024;
constexpr uint64_t kLingerNs = 1 * kNsPerS;  // time for a refused client to read why (RFC 9112 §9.6)

Counter& recycled_counter() {
  return metrics().counter("tidegate_http_server_recycled_connections_total",
                           "Idle connections of the daemon's own HTTP server that made room for others.");
}

}  // namespace

class ServerExchange final : public HttpExchange, public std::enable_shared_from_this<ServerExchange> {
 public:
  ServerExchange(std::shared_ptr<HttpConnection> connection, HttpRequest request)
      : connection_(std::move(connection)), request_(std::move(request)) {}

  ~ServerExchange() override {
    if (phase_ == Phase::unanswered) {
      connection_->respond(HttpResponse::problem(500, http1::reason_phrase(500), "the request was dropped unanswered"));
    } else if (phase_ == Phase::streaming) {
      connection_->close();
    }
  }

  const HttpRequest& request() const override { return request_; }
  std::string take_body() override { return std::exchange(request_.body, {}); }

  void respond(HttpResponse response) override {
    if (phase_ != Phase::unanswered) return;
    phase_ = Phase::ended;
    connection_->respond(std::move(response));
  }

  void begin_stream(int status, HttpHeaders headers) override {
    if (phase_ != Phase::unanswered) return;
    phase_ = connection_->begin_stream(status, std::move(headers)) ? Phase::streaming : Phase::ended;
  }

  bool write(std::string_view bytes) override {
    return phase_ == Phase::streaming && connection_->write_stream(bytes.size(), bytes);
  }
  bool write_shared(std::shared_ptr<const std::string> bytes) override {
    const size_t count = bytes->size();
    return phase_ == Phase::streaming && connection_->write_stream(count, std::move(bytes));
  }

  void end_stream() override {
    if (phase_ != Phase::streaming) return;
    phase_ = Phase::ended;
    connection_->end_stream();
  }

  void on_close(std::function<void()> fn) override {
    on_close_ = std::move(fn);
    if (phase_ == Phase::lost) tell_closed_later();
  }

  // The connection is lost.
  void lose() {
    if (phase_ == Phase::ended) return;
    phase_ = Phase::lost;
    if (on_close_) tell_closed_later();
  }

 private:
  enum class Phase : uint8_t { unanswered, streaming, ended, lost };

  void tell_closed_later() {
    connection_->loop().defer([weak = weak_from_this()] {
      const auto self = weak.lock();
      if (!self || !self->on_close_) return;
      const std::function<void()> fn = std::exchange(self->on_close_, nullptr);
      fn();
    });
  }

  const std::shared_ptr<HttpConnection> connection_;
  HttpRequest request_;
  Phase phase_ = Phase::unanswered;
  std::function<void()> on_close_;
};

HttpServerState::HttpServerState(EventLoop& loop_in, HttpHandler handler_in, const HttpServerLimits& limits_in)
    : loop(loop_in),
      handler(std::move(handler_in)),
      limits(limits_in),
      tcp_door(HttpDoor::Kind::tcp,
               {limits.connections, limits.connections_per_address, 0, limits.streams, limits.trusted_addresses},
               recycled_counter()),
      local_door(HttpDoor::Kind::local,
                 {limits.local_connections, 0, limits.owner_connections, limits.local_streams, {}},
                 recycled_counter()) {
  const auto counter = [](const char* reason) {
    return &metrics().counter("tidegate_http_server_refused_requests_total",
                              "Requests and connections the daemon's own HTTP server refused, by reason.",
                              {{"reason", reason}});
  };
  for (size_t i = 1; i < refused.size(); ++i) refused[i] = counter(fault_info(static_cast<http1::Fault>(i)).name);
  refused_body_too_large = counter("body_too_large");
  refused_too_slow = counter("too_slow");
  refused_too_many_streams = counter("too_many_streams");
  const auto at_door = [&](HttpDoor::Refusal refusal) -> Counter*& {
    return refused_at_door[static_cast<size_t>(refusal)];
  };
  at_door(HttpDoor::Refusal::too_many_connections) = counter("too_many_connections");
  at_door(HttpDoor::Refusal::too_many_from_address) = counter("too_many_from_address");
  at_door(HttpDoor::Refusal::no_descriptors) = counter("no_descriptors");
}

std::string_view HttpServerState::date() {
  const uint64_t now_s = realtime_ns() / kNsPerS;
  if (now_s != date_s_) {
    date_s_ = now_s;
    const auto seconds = static_cast<time_t>(now_s);
    tm utc{};
    ::gmtime_r(&seconds, &utc);
    char text[32];
    date_.assign(text, ::strftime(text, sizeof text, "%a, %d %b %Y %H:%M:%S GMT", &utc));
  }
  return date_;
}

HttpConnection::HttpConnection(std::shared_ptr<HttpServerState> state, HttpDoor& door, HttpDoor::Place place,
                               Transport transport, std::optional<Endpoint> peer, uint32_t peer_uid)
    : state_(std::move(state)),
      door_(door),
      place_(std::move(place)),
      transport_(std::move(transport)),
      timer_(state_->loop, [this] { on_timeout(); }),
      peer_(peer),
      peer_uid_(peer_uid),
      last_progress_ns_(state_->loop.now_ns()) {}

void HttpConnection::start() {
  interest_ = EPOLLIN;
  if (transport_.is_tls()) request_began_ns_ = now_ns();  // the time of a handshake does not count as idle
  registered_ = state_->loop.add(transport_.fd(), interest_, this);
  if (registered_) {
    settle();
  } else {
    close();
  }
}

void HttpConnection::close() {
  if (stage_ == Stage::closed) return;
  const auto self = shared_from_this();
  stage_ = Stage::closed;
  end_streaming();
  door_.note_busy(*this);
  place_.reset();
  timer_.cancel();
  if (registered_) state_->loop.remove(transport_.fd());
  transport_.close();
  in_ = {};
  out_ = {};
  taken_ = 0;
  if (const auto exchange = exchange_.lock()) exchange->lose();
  state_->connections.erase(this);
}

void HttpConnection::on_io(uint32_t events) {
  const auto self = shared_from_this();
  // The peer closed both directions or reset the connection, so nobody can read an answer.
  if ((events & (EPOLLHUP | EPOLLERR)) != 0) return close();
  if (unsent() > 0) flush();
  if ((events & EPOLLRDHUP) != 0 && streaming_) return close();
  if (stage_ == Stage::lingering) {
    discard_input();
  } else {
    read_input();
  }
  settle();
}

void HttpConnection::on_timeout() {
  const auto self = shared_from_this();
  const bool receiving = stage_ == Stage::body || (stage_ == Stage::head && !in_.empty());
  if (receiving && unsent() == 0) {
    state_->refused_too_slow->add();
    refuse(408, fmt::format("the request did not arrive within {} ms", state_->limits.request_ms));
    settle();
  } else {
    close();
  }
}

// ---- Input

bool HttpConnection::wants_input() const {
  return (stage_ == Stage::head || stage_ == Stage::body) && !peer_done_ && !close_when_sent_ &&
         unsent() <= kHttpUnsentAnswerBytes;
}

void HttpConnection::read_input() {
  process_input();  // bytes that came with an earlier request and could not be processed then
  char arrived[kReadBytes];
  for (uint32_t reads = 0; wants_input(); ++reads) {
    if (reads == kHttpTurnReads || turn_requests_.left(now_ns(), kHttpTurnRequests) == 0) {
      return state_->loop.call_again(transport_.fd());
    }
    const Transport::Io io = transport_.read(arrived, sizeof arrived);
    in_.append(arrived, io.bytes);
    if (io.status == IoStatus::error) return close();
    if (io.status == IoStatus::closed) {
      peer_done_ = true;
      if (unsent() == 0) return close();
      close_when_sent_ = true;
      return;
    }
    read_wants_write_ = io.status == IoStatus::want_write;
    if (io.status != IoStatus::ok) return;
    process_input();
    // A short read has emptied the socket. The loop reports new bytes. TLS may still hold some.
    if (io.bytes < sizeof arrived && !transport_.is_tls()) return;
  }
}

void HttpConnection::discard_input() {
  char scratch[kReadBytes];
  for (uint32_t reads = 0;; ++reads) {
    if (reads == kHttpTurnReads) return state_->loop.call_again(transport_.fd());
    const Transport::Io io = transport_.read(scratch, sizeof scratch);
    if (io.status == IoStatus::want_read || io.status == IoStatus::want_write) return;
    if (io.status != IoStatus::ok) return close();
  }
}

void HttpConnection::process_input() {
  if (processing_) return;  // an answer was given inside the handler; the loop below continues by itself
  processing_ = true;
  bool moved = true;
  while (moved && !close_when_sent_ && unsent() <= kHttpUnsentAnswerBytes) {
    if (stage_ == Stage::head && turn_requests_.left(now_ns(), kHttpTurnRequests) == 0) {
      state_->loop.call_again(transport_.fd());
      break;
    }
    moved = (stage_ == Stage::head && take_head()) || (stage_ == Stage::body && take_body());
  }
  processing_ = false;
  if (stage_ == Stage::closed) return;
  in_.erase(0, std::exchange(taken_, 0));
  if (in_.empty() && in_.capacity() > kHttpKeptBufferBytes) in_ = {};
}

bool HttpConnection::take_head() {
  if (input().empty()) return false;
  if (request_began_ns_ == 0) request_began_ns_ = now_ns();
  const http1::ParseResult parsed = http1::parse_request(input(), state_->limits.head, scanned_, head_);
  if (parsed.status == http1::Status::incomplete) return false;
  scanned_ = 0;
  if (parsed.status == http1::Status::error) {
    refuse(parsed.fault);
    return false;
  }
  take_request(parsed.consumed);
  if (framing_ == http1::Framing::length && body_remaining_ > state_->limits.body_bytes) {
    state_->refused_body_too_large->add();
    refuse(413, fmt::format("the body may have at most {} bytes", state_->limits.body_bytes));
    return false;
  }
  stage_ = Stage::body;
  // RFC 9110 §10.1.1: not sent if some of the content is already here.
  if (head_.expect_continue && input().empty()) {
    out_.append("HTTP/1.1 100 Continue\r\n\r\n");
    flush();
  }
  return true;
}

// Copies out of head_ what must outlive the buffer.
void HttpConnection::take_request(size_t head_bytes) {
  request_ = {};
  request_.method = head_.method;
  request_.target = head_.target;
  request_.path = head_.path;
  request_.query = head_.query;
  request_.authority = head_.authority;
  request_.peer = peer_;
  request_.peer_uid = peer_uid_;
  request_.headers.reserve(head_.field_count);
  for (const http1::Field& field : head_) {
    std::string name(field.name);
    for (char& c : name) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c | 0x20) : c;
    request_.headers.emplace_back(std::move(name), field.value);
  }
  framing_ = head_.framing;
  body_remaining_ = head_.content_length;
  chunks_ = http1::ChunkedDecoder(state_->limits.head);
  keep_alive_ = head_.keep_alive && !state_->winding_down;
  head_only_ = head_.method == "HEAD";
  minor_0_ = head_.minor_version == 0;
  taken_ += head_bytes;
}

bool HttpConnection::append_body(std::string_view bytes) {
  if (request_.body.size() + bytes.size() > state_->limits.body_bytes) {
    state_->refused_body_too_large->add();
    refuse(413, fmt::format("the body may have at most {} bytes", state_->limits.body_bytes));
    return false;
  }
  // A body that is not small grows once, to the length that its client told.
  if (framing_ == http1::Framing::length && request_.body.size() > kHttpUnsentAnswerBytes) {
    request_.body.reserve(request_.body.size() + static_cast<size_t>(body_remaining_));
  }
  request_.body += bytes;
  taken_ += bytes.size();
  return true;
}

bool HttpConnection::take_body() {
  if (framing_ == http1::Framing::chunked) return take_chunked_body();
  const auto bytes = static_cast<size_t>(std::min<uint64_t>(body_remaining_, input().size()));
  if (!append_body(input().substr(0, bytes))) return false;
  body_remaining_ -= bytes;
  if (body_remaining_ != 0) return false;
  dispatch();
  return true;
}

bool HttpConnection::take_chunked_body() {
  for (;;) {
    const http1::ChunkedDecoder::Step step = chunks_.decode(input());
    if (step.status == http1::Status::error) {
      refuse(step.fault);
      return false;
    }
    if (!append_body(step.data)) return false;
    taken_ += step.consumed - step.data.size();
    if (step.status == http1::Status::complete) {
      dispatch();
      return true;
    }
    if (step.consumed == 0) return false;
  }
}

void HttpConnection::dispatch() {
  stage_ = Stage::answering;
  door_.note_busy(*this);
  turn_requests_.use(1);
  request_began_ns_ = 0;
  const auto state = state_;  // this keeps the state if the handler destroys the server
  auto exchange = std::make_shared<ServerExchange>(shared_from_this(), std::move(request_));
  exchange_ = exchange;
  // A fault in one answer must not end a daemon. The exchange that is released here answers 500.
  try {
    state->handler(std::move(exchange));
  } catch (const std::exception& error) {
    log_error("http server: a handler failed: {}", error.what());
  }
}

void HttpConnection::refuse(http1::Fault fault) {
  state_->refused[static_cast<size_t>(fault)]->add();
  refuse(fault_info(fault).status, fault_info(fault).sentence);
}

// Answers a request that does not reach the handler. The bytes after it cannot be trusted.
void HttpConnection::refuse(int status, std::string_view detail) {
  keep_alive_ = false;
  head_only_ = minor_0_ = false;
  linger_when_sent_ = true;
  stage_ = Stage::answering;
  respond(HttpResponse::problem(status, http1::reason_phrase(status), detail));
}

// ---- Output

void HttpConnection::respond(HttpResponse response) {
  if (stage_ != Stage::answering) return;
  const auto self = shared_from_this();
  if (!is_sendable(response.headers)) {
    response = HttpResponse::problem(500, http1::reason_phrase(500), "the answer had a header that cannot be sent");
  }
  append_response_head(out_.tail(), response.status, response.headers, state_->date());
  append_connection_fields(false);
  // RFC 9110 §8.6: no Content-Length on 1xx and 204; §6.4.1: no content on 204 and 304.
  const bool bodiless = response.status < 200 || response.status == 204 || response.status == 304;
  if (!bodiless) fmt::format_to(std::back_inserter(out_.tail()), "Content-Length: {}\r\n", response.body.size());
  out_.append("\r\n");
  if (!bodiless && !head_only_) out_.take(std::move(response.body));
  finish_answer();
}

bool HttpConnection::begin_stream(int status, HttpHeaders headers) {
  if (stage_ != Stage::answering) return false;
  const auto self = shared_from_this();
  if (!is_sendable(headers)) {
    respond({500, std::move(headers), {}});
    return false;
  }
  if (!door_.begin_stream()) {
    state_->refused_too_many_streams->add();
    respond(HttpResponse::problem(503, http1::reason_phrase(503), "the server has as many streams as it may"));
    return false;
  }
  streaming_ = true;
  append_response_head(out_.tail(), status, headers, state_->date());
  append_connection_fields(!minor_0_);  // RFC 9112 §6.1: no transfer coding to an HTTP/1.0 client
  out_.append("\r\n");
  flush();
  settle();
  return true;
}

template <class Bytes>
bool HttpConnection::write_stream(size_t count, Bytes bytes) {
  if (stage_ != Stage::answering || !streaming_) return false;
  if (count == 0 || head_only_) return true;
  const auto self = shared_from_this();
  if (unsent() + count > state_->limits.max_stream_backlog) {
    close();
    return false;
  }
  if (unsent() == 0) last_progress_ns_ = now_ns();
  if (minor_0_) {
    out_.append(std::move(bytes));
  } else {
    char header[18];
    out_.append(std::string_view(header, http1::encode_chunk_header(count, header)));
    out_.append(std::move(bytes));
    out_.append("\r\n");
  }
  flush();
  settle();
  return stage_ != Stage::closed;
}

void HttpConnection::end_stream() {
  if (stage_ != Stage::answering || !streaming_) return;
  const auto self = shared_from_this();
  if (!minor_0_ && !head_only_) out_.append("0\r\n\r\n");
  finish_answer();
}

// Only this function sets Connection and Transfer-Encoding. A stream to an HTTP/1.0 client ends with the connection.
void HttpConnection::append_connection_fields(bool chunked) {
  if (streaming_ && !chunked) keep_alive_ = false;
  if (!keep_alive_ || peer_done_)
    out_.append("Connection: close\r\n");
  else if (minor_0_)
    out_.append("Connection: keep-alive\r\n");
  if (chunked) out_.append("Transfer-Encoding: chunked\r\n");
}

// Call it when the current answer is completely in out_.
void HttpConnection::finish_answer() {
  exchange_.reset();
  end_streaming();
  close_when_sent_ = !keep_alive_ || peer_done_;
  if (!close_when_sent_) stage_ = Stage::head;
  last_progress_ns_ = now_ns();
  flush();
  if (stage_ == Stage::closed) return;
  if (!processing_ && stage_ == Stage::head) resume_later();
  settle();
}

// Processes the next request from the loop, so that no handler is entered from inside an answer.
void HttpConnection::resume_later() {
  if (in_.empty() && !transport_.has_pending()) return;  // the socket will report the next bytes
  state_->loop.defer([self = shared_from_this()] {
    if (self->stage_ != Stage::head) return;
    self->read_input();
    self->settle();
  });
}

// Sends so much in one turn that other connections have theirs. settle() asks the loop for the next turn.
void HttpConnection::flush() {
  for (size_t sent = 0; stage_ != Stage::closed && unsent() > 0;) {
    if (sent >= kHttpTurnSentBytes) return;
    const std::string_view next = out_.front().substr(0, kHttpTurnSentBytes);
    const Transport::Io io = transport_.write(next.data(), next.size());
    write_wants_read_ = io.status == IoStatus::want_read;
    if (io.status == IoStatus::want_read || io.status == IoStatus::want_write) return;
    if (io.status != IoStatus::ok) return close();
    out_.consume(io.bytes);
    sent += io.bytes;
    last_progress_ns_ = now_ns();
  }
  if (stage_ != Stage::closed) after_flush();
}

void HttpConnection::after_flush() {
  if (!close_when_sent_ || stage_ == Stage::lingering) return;
  if (!linger_when_sent_ || peer_done_) return close();
  transport_.shutdown_write();
  stage_ = Stage::lingering;
}

void HttpConnection::end_streaming() {
  if (std::exchange(streaming_, false)) door_.end_stream();
}

void HttpConnection::settle() {
  if (stage_ == Stage::closed) return;
  const bool idle = stage_ == Stage::lingering || (stage_ == Stage::head && unsent() == 0);
  if (idle) {
    door_.note_idle(*this);  // added at the end of the list, unless it is in the list already
  } else {
    door_.note_busy(*this);
  }
  uint32_t interest = 0;
  if (wants_input() || stage_ == Stage::lingering) interest |= EPOLLIN;
  if (streaming_ && !peer_done_) interest |= EPOLLRDHUP;
  if (unsent() > 0) interest |= write_wants_read_ ? EPOLLIN : EPOLLOUT;
  if (read_wants_write_) interest |= EPOLLOUT;
  if (interest != interest_) {
    interest_ = interest;
    state_->loop.modify(transport_.fd(), interest);
  }
  const HttpServerLimits& limits = state_->limits;
  if (stage_ == Stage::lingering) {
    timer_.arm_at_ns(last_progress_ns_ + kLingerNs);
  } else if (unsent() > 0) {
    timer_.arm_at_ns(last_progress_ns_ + limits.idle_ms * kNsPerMs);
  } else if (stage_ == Stage::answering) {
    timer_.cancel();
  } else if (request_began_ns_ != 0) {
    timer_.arm_at_ns(request_began_ns_ + limits.request_ms * kNsPerMs);
  } else {
    timer_.arm_at_ns(last_progress_ns_ + limits.idle_ms * kNsPerMs);
  }
}

}  // namespace tidegate
