// SPDX-License-Identifier: Apache-2.0
// Helpers for the proxy's tests: real origins and clients over loopback, and a proxy in this process. Sockets block,
// with a time limit after which a test fails instead of hanging.
#pragma once

#include <sys/resource.h>

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "conf/model.h"
#include "conf/model/route.h"
#include "conf/snapshot.h"
#include "core/event_loop.h"
#include "core/fd.h"
#include "core/ip.h"
#include "core/metrics.h"
#include "l7/proxy.h"

namespace tidegate::l7::test {

// A blocking socket.
class Wire {
 public:
  explicit Wire(UniqueFd fd) : fd_(std::move(fd)) {}
  // `receive_room` sets SO_RCVBUF, the size of the kernel's receive buffer; 0: the default. Bytes beyond it stay at the
  // proxy.
  static Wire connect(const Endpoint& endpoint, int receive_room = 0);
  bool send(std::string_view bytes);
  // Reads up to and including `mark`, or everything if the peer closes first.
  std::string read_until(std::string_view mark);
  std::string read_exactly(size_t bytes);
  std::string read_some();  // empty at the end of the connection
  std::string read_to_end();
  bool at_end();  // waits for the peer's close
  void half_close();
  void reset();  // closes with RST
  int fd() const { return fd_.get(); }

 private:
  bool more();
  UniqueFd fd_;
  std::string buffered_;
};

struct Answer {
  int status = 0;
  std::string head;   // lower case
  std::string spelt;  // the head as received
  std::string body;
  bool complete = false;
  std::string field(const std::string& lower_name) const;  // the first value, or empty
};
Answer read_answer(Wire& wire, bool to_head = false);
// Skips interim answers (1xx other than 101).
Answer read_final_answer(Wire& wire);
// Sends one request on a new connection.
Answer ask(const Endpoint& endpoint, std::string_view request);
std::string get(std::string_view path, std::string_view host = "a.test", std::string_view more_fields = "");

// An origin: accepts on its own port, with one thread per connection. The handler gets the head of each request, reads
// a body itself, and returns false to close.
class Origin {
 public:
  // `head`: the request's, its field names in lower case.
  using Handler = std::function<bool(const std::string& head, Wire& wire)>;
  explicit Origin(Handler handler);
  ~Origin();
  Endpoint endpoint() const { return endpoint_; }
  size_t requests() const { return requests_; }
  std::string last_head() const;  // head of the last request, as received
  size_t connections() const { return connections_; }
  // From now on refuses connections; open ones are cut.
  void die();

  static Handler says(std::string body);  // always 200 with that body
  static std::string ok(std::string_view body, std::string_view more_fields = "");

 private:
  void run();
  void serve(int fd);
  Handler handler_;
  UniqueFd listen_;
  Endpoint endpoint_;
  std::atomic<size_t> requests_{0}, connections_{0};
  std::atomic<bool> stop_{false};
  mutable std::mutex mutex_;
  std::string last_head_;
  std::vector<int> open_;
  std::vector<std::thread> threads_;
  std::thread acceptor_;
};

// While it lives, lowers the limit of open files, and opens all files except the reserved ones. Nothing in the process
// may close a file at that time, because the next socket would get its number.
class FewFiles {
 public:
  explicit FewFiles(uint64_t limit);
  ~FewFiles();
  FewFiles(const FewFiles&) = delete;
  FewFiles& operator=(const FewFiles&) = delete;

 private:
  rlimit before_{};
  std::vector<UniqueFd> files_;
};

// Node "n1" with one plain listener on 127.0.0.1. Add pools, routes and so on, then call start().
class Edge {
 public:
  Edge();
  ~Edge();
  Model model;

  uint32_t add_pool(const std::string& name, const std::vector<Endpoint>& backends);
  Route& add_route(const std::string& path, uint32_t pool);
  Route& add_fixed(const std::string& path, uint16_t status, const std::string& body = "");
  void start();
  // Publishes the model in its current state as a new version.
  Result<void> publish();
  void publish(std::shared_ptr<const LiveState> live_state);
  Endpoint endpoint(size_t listener = 0) const;
  Endpoint bound(const Endpoint& bind) const { return *proxy_->bound(bind); }
  // Runs the main loop until `done` is true. Fails after some seconds.
  bool run_until(const std::function<bool()>& done);
  bool drain();
  Proxy& proxy() { return *proxy_; }
  uint64_t metric(const std::string& series) const;  // value of the line that starts with `series`
  std::string secret = "a secret that tests share, long enough";
  std::string state_dir;
  std::vector<Purge> missed;  // delivered before the first version is in force, as a follower delivers missed purges

 private:
  EventLoop loop_;
  Metrics metrics_;
  std::unique_ptr<Proxy> proxy_;
  uint64_t version_ = 0;
};

}  // namespace tidegate::l7::test
