// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/l7/support.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <charconv>

#include "conf/model/listener.h"
#include "conf/model/node.h"
#include "conf/model/pool.h"
#include "conf/model/site.h"
#include "core/clock.h"
#include "core/open_files.h"

namespace tidegate::l7::test {
namespace {

constexpr int kPatienceMs = 60'000;

std::string lower(std::string text) {
  for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

// Only the field names; values and the first line are unchanged.
std::string with_lower_names(std::string head) {
  for (size_t line = head.find("\r\n"); line != std::string::npos; line = head.find("\r\n", line + 2)) {
    for (size_t i = line + 2; i < head.size() && head[i] != ':' && head[i] != '\r'; ++i) {
      head[i] = static_cast<char>(std::tolower(static_cast<unsigned char>(head[i])));
    }
  }
  return head;
}

}  // namespace

Wire Wire::connect(const Endpoint& endpoint, int receive_room) {
  sockaddr_storage address{};
  const socklen_t length = endpoint.to_sockaddr(address);
  UniqueFd fd(::socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (receive_room != 0) ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVBUF, &receive_room, sizeof receive_room);
  if (::connect(fd.get(), reinterpret_cast<sockaddr*>(&address), length) != 0) ADD_FAILURE() << "cannot connect";
  return Wire(std::move(fd));
}

bool Wire::send(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = ::send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent <= 0) return false;
    bytes.remove_prefix(static_cast<size_t>(sent));
  }
  return true;
}

bool Wire::more() {
  pollfd wait{fd_.get(), POLLIN, 0};
  if (::poll(&wait, 1, kPatienceMs) <= 0) {
    ADD_FAILURE() << "nothing came in time; so far: " << buffered_.substr(0, 200);
    return false;
  }
  char chunk[65536];
  const ssize_t got = ::recv(fd_.get(), chunk, sizeof chunk, 0);
  if (got <= 0) return false;
  buffered_.append(chunk, static_cast<size_t>(got));
  return true;
}

std::string Wire::read_until(std::string_view mark) {
  size_t at;
  while ((at = buffered_.find(mark)) == std::string::npos) {
    if (!more()) return std::exchange(buffered_, {});
  }
  std::string out = buffered_.substr(0, at + mark.size());
  buffered_.erase(0, out.size());
  return out;
}

std::string Wire::read_exactly(size_t bytes) {
  while (buffered_.size() < bytes && more()) continue;
  std::string out = buffered_.substr(0, bytes);
  buffered_.erase(0, out.size());
  return out;
}

std::string Wire::read_some() {
  if (buffered_.empty()) more();
  return std::exchange(buffered_, {});
}

std::string Wire::read_to_end() {
  while (more()) continue;
  return std::exchange(buffered_, {});
}

bool Wire::at_end() { return buffered_.empty() && !more() && buffered_.empty(); }

void Wire::half_close() { ::shutdown(fd_.get(), SHUT_WR); }

void Wire::reset() {
  const struct ::linger hard { 1, 0 };
  ::setsockopt(fd_.get(), SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
  fd_.reset();
}

std::string Answer::field(const std::string& lower_name) const {
  const size_t at = head.find("\r\n" + lower_name + ": ");
  if (at == std::string::npos) return {};
  const size_t start = at + lower_name.size() + 4;
  return head.substr(start, head.find("\r\n", start) - start);
}

Answer read_answer(Wire& wire, bool to_head) {
  Answer answer;
  answer.spelt = wire.read_until("\r\n\r\n");
  answer.head = lower(answer.spelt);
  if (answer.head.size() < 12 || !answer.head.ends_with("\r\n\r\n")) return answer;
  std::from_chars(answer.head.data() + 9, answer.head.data() + 12, answer.status);
  if (to_head || answer.status == 204 || answer.status == 304 || answer.status < 200) {
    answer.complete = true;
  } else if (answer.field("transfer-encoding") == "chunked") {
    for (;;) {
      const std::string line = wire.read_until("\r\n");
      size_t bytes = 0;
      const auto parsed = std::from_chars(line.data(), line.data() + line.size(), bytes, 16);
      if (parsed.ec != std::errc() || !line.ends_with("\r\n")) return answer;
      const std::string chunk = wire.read_exactly(bytes + 2);
      if (chunk.size() != bytes + 2) return answer;
      if (bytes == 0) break;
      answer.body += chunk.substr(0, bytes);
    }
    answer.complete = true;
  } else if (const std::string length = answer.field("content-length"); !length.empty()) {
    const size_t bytes = std::stoul(length);
    answer.body = wire.read_exactly(bytes);
    answer.complete = answer.body.size() == bytes;
  } else {
    answer.body = wire.read_to_end();
    answer.complete = true;
  }
  return answer;
}

Answer read_final_answer(Wire& wire) {
  Answer answer = read_answer(wire);
  while (answer.status >= 100 && answer.status < 200 && answer.status != 101) answer = read_answer(wire);
  return answer;
}

Answer ask(const Endpoint& endpoint, std::string_view request) {
  Wire wire = Wire::connect(endpoint);
  wire.send(request);
  return read_final_answer(wire);
}

std::string get(std::string_view path, std::string_view host, std::string_view more_fields) {
  return "GET " + std::string(path) + " HTTP/1.1\r\nHost: " + std::string(host) + "\r\n" + std::string(more_fields) +
         "\r\n";
}

Origin::Origin(Handler handler) : handler_(std::move(handler)) {
  sockaddr_storage address{};
  socklen_t length = Endpoint::parse("127.0.0.1:0")->to_sockaddr(address);
  listen_ = UniqueFd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  EXPECT_EQ(0, ::bind(listen_.get(), reinterpret_cast<sockaddr*>(&address), length));
  EXPECT_EQ(0, ::listen(listen_.get(), 128));
  ::getsockname(listen_.get(), reinterpret_cast<sockaddr*>(&address), &length);
  endpoint_ = Endpoint::from(address);
  acceptor_ = std::thread([this] { run(); });
}

void Origin::run() {
  for (;;) {
    const int fd = ::accept4(listen_.get(), nullptr, nullptr, SOCK_CLOEXEC);
    if (fd < 0) return;
    const std::lock_guard lock(mutex_);
    if (stop_) {
      ::close(fd);
      return;
    }
    ++connections_;
    open_.push_back(fd);
    threads_.emplace_back([this, fd] { serve(fd); });
  }
}

void Origin::serve(int fd) {
  Wire wire{UniqueFd(fd)};
  for (;;) {
    const std::string head = wire.read_until("\r\n\r\n");
    if (!head.ends_with("\r\n\r\n")) break;
    {
      const std::lock_guard lock(mutex_);
      last_head_ = head;
    }
    ++requests_;
    if (!handler_(with_lower_names(head), wire)) break;
  }
  const std::lock_guard lock(mutex_);
  std::erase(open_, fd);
}

std::string Origin::last_head() const {
  const std::lock_guard lock(mutex_);
  return last_head_;
}

void Origin::die() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
    ::shutdown(listen_.get(), SHUT_RDWR);
    for (const int fd : open_) ::shutdown(fd, SHUT_RDWR);
  }
  if (acceptor_.joinable()) acceptor_.join();
  listen_.reset();
}

Origin::~Origin() {
  die();
  for (std::thread& thread : threads_) thread.join();
}

std::string Origin::ok(std::string_view body, std::string_view more_fields) {
  return "HTTP/1.1 200 OK\r\nContent-Length: " + std::to_string(body.size()) + "\r\n" + std::string(more_fields) +
         "\r\n" + std::string(body);
}

Origin::Handler Origin::says(std::string body) {
  return [body = std::move(body)](const std::string&, Wire& wire) { return wire.send(ok(body)); };
}

FewFiles::FewFiles(uint64_t limit) {
  ::getrlimit(RLIMIT_NOFILE, &before_);
  rlimit lowered = before_;
  lowered.rlim_cur = limit;
  EXPECT_EQ(::setrlimit(RLIMIT_NOFILE, &lowered), 0);
  for (;;) {
    UniqueFd fd(::dup(2));
    if (!fd || is_reserved_file(fd.get())) return;
    files_.push_back(std::move(fd));
  }
}

FewFiles::~FewFiles() { ::setrlimit(RLIMIT_NOFILE, &before_); }

Edge::Edge() {
  Node node;
  node.name = "n1";
  node.l7.enabled = true;
  node.l7.workers = 1;
  model.sites.push_back({"s1", {}});
  node.site = 0;
  model.nodes.push_back(node);
  Listener listener;
  listener.name = "plain";
  listener.bind = {*Endpoint::parse("127.0.0.1:0")};
  model.listeners.push_back(listener);
}

Edge::~Edge() { proxy_.reset(); }

uint32_t Edge::add_pool(const std::string& name, const std::vector<Endpoint>& backends) {
  Pool pool;
  pool.name = name;
  for (const Endpoint& endpoint : backends) {
    Backend backend;
    backend.name = "b" + std::to_string(pool.backends.size() + 1);
    backend.addresses = {endpoint.address};
    backend.port = endpoint.port;
    pool.backends.push_back(backend);
  }
  model.pools.push_back(pool);
  return static_cast<uint32_t>(model.pools.size() - 1);
}

Route& Edge::add_route(const std::string& path, uint32_t pool) {
  Route route;
  route.name = "r" + std::to_string(model.routes.size() + 1);
  route.path = path;
  if (pool != kNone) route.what = RouteToPool{pool};
  model.routes.push_back(route);
  return model.routes.back();
}

Route& Edge::add_fixed(const std::string& path, uint16_t status, const std::string& body) {
  Route& route = add_route(path, kNone);
  route.what = RouteAnswer{status, body};
  return route;
}

void Edge::start() {
  proxy_ = std::make_unique<Proxy>(loop_, secret, state_dir, metrics_);
  const Result<void> published = publish();
  ASSERT_TRUE(published) << published.error().message;
}

Result<void> Edge::publish() {
  ++version_;
  const auto snapshot = make_snapshot(version_, "digest" + std::to_string(version_), std::make_shared<Model>(model),
                                      std::make_shared<LiveState>());
  if (version_ == 1) {
    const Result<PurgePosition> prepared = proxy_->prepare(snapshot, snapshot->model->nodes[0]);
    if (!prepared) return prepared.error();
    for (const Purge& purge : missed) proxy_->purge(purge);
  }
  return proxy_->apply(snapshot, snapshot->model->nodes[0]);
}

void Edge::publish(std::shared_ptr<const LiveState> live_state) {
  ++version_;
  const auto snapshot =
      make_snapshot(version_, "digest" + std::to_string(version_), std::make_shared<Model>(model), live_state);
  ASSERT_TRUE(proxy_->apply(snapshot, snapshot->model->nodes[0]));
}

Endpoint Edge::endpoint(size_t listener) const { return bound(model.listeners[listener].bind[0]); }

bool Edge::run_until(const std::function<bool()>& done) {
  const uint64_t give_up_ns = monotonic_ns() + uint64_t{kPatienceMs} * kNsPerMs;
  while (!done()) {
    if (monotonic_ns() > give_up_ns) return false;
    loop_.run_once(5 * kNsPerMs);
  }
  return true;
}

bool Edge::drain() {
  bool drained = false;
  proxy_->drain([&drained] { drained = true; });
  return run_until([&drained] { return drained; });
}

uint64_t Edge::metric(const std::string& series) const {
  const std::string text = metrics_.prometheus_text();
  const size_t at = text.find("\n" + series + " ");
  if (at == std::string::npos) return 0;
  return static_cast<uint64_t>(std::stod(text.substr(at + series.size() + 2)));
}

}  // namespace tidegate::l7::test
