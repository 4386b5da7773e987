// SPDX-License-Identifier: Apache-2.0
// What a client may send, on a real connection to a worker that runs on this thread: the HTTP/2 preface or HTTP/1, then
// any bytes. The routes answer without a backend.
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <memory>

#include "conf/model.h"
#include "conf/model/listener.h"
#include "conf/model/node.h"
#include "conf/model/route.h"
#include "l7/worker.h"

namespace tidegate::l7 {
namespace {

class FuzzedWorker {
 public:
  FuzzedWorker() {
    auto model = std::make_shared<Model>();
    Node node;
    node.name = "fuzz";
    model->nodes.push_back(node);
    Listener listener;
    listener.name = "plain";
    listener.bind = {bind_};
    listener.max_body_bytes = 1000;
    model->listeners.push_back(listener);
    Route fixed;
    fixed.name = "fixed";
    fixed.path = "/*";
    fixed.what = RouteAnswer{200, "ok"};
    model->routes.push_back(fixed);
    Route redirect;
    redirect.name = "redirect";
    redirect.path = "/to/{where}";
    redirect.what = RouteRedirect{"https://{host}/{where}?{path}"};
    model->routes.push_back(redirect);
    const auto snapshot = make_snapshot(1, "fuzz", model, std::make_shared<LiveState>());
    const auto plan = attach(*describe({snapshot, 0, {1, 2}, {3, 4}}, nullptr), nullptr, registry_, policies_);
    auto adoption = std::make_shared<Adoption>();
    adoption->plan = std::make_unique<LocalPlan>(plan, *TlsContexts(nullptr).prepare(*plan));
    worker_.adopt(adoption);
    worker_.loop().run_once(0);
  }

  void feed(const uint8_t* data, size_t bytes) {
    int ends[2];
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends) != 0) return;
    const UniqueFd client(ends[0]);
    worker_.accept(UniqueFd(ends[1]), *Endpoint::parse("192.0.2.1:1"), bind_);
    while (bytes > 0) {
      const ssize_t sent = ::send(client.get(), data, bytes, MSG_NOSIGNAL);
      if (sent > 0) {
        data += sent;
        bytes -= static_cast<size_t>(sent);
      }
      worker_.loop().run_once(0);
      char answers[4096];
      ssize_t got;
      while ((got = ::recv(client.get(), answers, sizeof answers, 0)) > 0) continue;
      if (got == 0 || (sent < 0 && errno != EAGAIN)) break;
    }
    ::shutdown(client.get(), SHUT_RDWR);
    for (int i = 0; i < 3; ++i) worker_.loop().run_once(0);
  }

 private:
  const Endpoint bind_ = *Endpoint::parse("192.0.2.2:80");
  Metrics metrics_;
  Stats stats_{metrics_};
  std::unique_ptr<AccessLog> log_ = std::move(*AccessLog::open({}, 1, stats_.log_lines_dropped));
  EventLoop main_loop_;
  WorkerShared shared_{stats_, *log_, nullptr, main_loop_, AdmissionShared(HashKey{1, 2})};
  RuntimeRegistry registry_;
  policy::Registry policies_;
  Worker worker_{0, shared_};
};

}  // namespace
}  // namespace tidegate::l7

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t bytes) {
  static auto* const worker = new tidegate::l7::FuzzedWorker;
  worker->feed(data, bytes);
  return 0;
}
