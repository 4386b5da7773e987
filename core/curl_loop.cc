// SPDX-License-Identifier: Apache-2.0
#include "core/curl_loop.h"

#include <utility>
#include <vector>

#include "core/assert.h"

namespace tidegate {

struct CurlLoop::Socket final : IoHandler {
  Socket(CurlLoop& owner, int watched) : owner(owner), fd(watched) {}
  void on_io(uint32_t events) override {
    int what = 0;
    if ((events & (EPOLLIN | EPOLLHUP | EPOLLRDHUP)) != 0) what |= CURL_CSELECT_IN;
    if ((events & EPOLLOUT) != 0) what |= CURL_CSELECT_OUT;
    if ((events & EPOLLERR) != 0) what |= CURL_CSELECT_ERR;
    owner.act(fd, what);
  }
  CurlLoop& owner;
  const int fd;
};

CurlLoop::CurlLoop(EventLoop& loop)
    : loop_(loop), multi_(nullptr), timer_(loop, [this] { act(CURL_SOCKET_TIMEOUT, 0); }) {
  static const CURLcode global = curl_global_init(CURL_GLOBAL_DEFAULT);
  TIDEGATE_ASSERT(global == CURLE_OK, "libcurl starts");
  multi_ = curl_multi_init();
  TIDEGATE_ASSERT(multi_ != nullptr, "libcurl makes a set of transfers");
  curl_multi_setopt(multi_, CURLMOPT_SOCKETFUNCTION, &CurlLoop::on_socket);
  curl_multi_setopt(multi_, CURLMOPT_SOCKETDATA, this);
  curl_multi_setopt(multi_, CURLMOPT_TIMERFUNCTION, &CurlLoop::on_timeout);
  curl_multi_setopt(multi_, CURLMOPT_TIMERDATA, this);
}

CurlLoop::~CurlLoop() {
  for (const auto& [easy, done] : running_) curl_multi_remove_handle(multi_, easy);
  curl_multi_cleanup(multi_);  // closes the connections that it kept, by on_socket
  for (const auto& [fd, socket] : sockets_) loop_.remove(fd);
}

void CurlLoop::add(CURL* easy, std::function<void(CURLcode)> done) {
  running_.emplace(easy, std::move(done));
  curl_multi_add_handle(multi_, easy);  // asks for a timeout of 0, so that the transfer starts from the loop
}

void CurlLoop::remove(CURL* easy) {
  if (running_.erase(easy) != 0) curl_multi_remove_handle(multi_, easy);
}

int CurlLoop::on_socket(CURL*, curl_socket_t fd, int what, void* self, void*) {
  static_cast<CurlLoop*>(self)->watch(fd, what);
  return 0;
}

int CurlLoop::on_timeout(CURLM*, long timeout_ms, void* self) {
  Timer& timer = static_cast<CurlLoop*>(self)->timer_;
  if (timeout_ms < 0) {
    timer.cancel();
  } else {
    timer.arm_after_ms(static_cast<uint64_t>(timeout_ms));
  }
  return 0;
}

void CurlLoop::watch(int fd, int what) {
  const auto known = sockets_.find(fd);
  if (what == CURL_POLL_REMOVE) {
    if (known == sockets_.end()) return;
    loop_.remove(fd);
    // Destroyed later, because it may be the socket whose event is being handled.
    loop_.defer([gone = std::shared_ptr<Socket>(std::move(known->second))] {});
    sockets_.erase(known);
    return;
  }
  uint32_t events = 0;
  if (what == CURL_POLL_IN || what == CURL_POLL_INOUT) events |= EPOLLIN | EPOLLRDHUP;
  if (what == CURL_POLL_OUT || what == CURL_POLL_INOUT) events |= EPOLLOUT;
  if (known != sockets_.end()) return loop_.modify(fd, events);
  auto socket = std::make_unique<Socket>(*this, fd);
  if (loop_.add(fd, events, socket.get())) sockets_.emplace(fd, std::move(socket));
}

void CurlLoop::act(int fd, int events) {
  int running = 0;
  curl_multi_socket_action(multi_, fd, events, &running);
  take_results();
  if (after_) after_();
}

void CurlLoop::take_results() {
  std::vector<std::pair<CURL*, CURLcode>> ended;
  int left = 0;
  while (const CURLMsg* message = curl_multi_info_read(multi_, &left)) {
    if (message->msg == CURLMSG_DONE) ended.emplace_back(message->easy_handle, message->data.result);
  }
  for (const auto& [easy, code] : ended) {
    const auto found = running_.find(easy);
    if (found == running_.end()) continue;  // the callback of another transfer removed this one
    const std::function<void(CURLcode)> done = std::move(found->second);
    running_.erase(found);
    curl_multi_remove_handle(multi_, easy);
    done(code);
  }
}

}  // namespace tidegate
