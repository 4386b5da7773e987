// SPDX-License-Identifier: Apache-2.0
#include "dns/xdp/server.h"

#include <sys/eventfd.h>

#include <algorithm>

#include "core/clock.h"
#include "core/thread.h"

namespace tidegate::dns {
namespace {

constexpr int kLastXdpBatches = 256;  // the most batches that are answered after stop()
constexpr int kLookAgainMs = 1;       // used while the kernel still has answers and must be asked to send them

}  // namespace

XdpServer::XdpServer(TablesPublisher& publisher, const HashKey& cookie_secret)
    : publisher_(publisher),
      slot_(publisher.add_reader()),
      worker_(std::make_unique<Worker>(cookie_secret)),
      stopping_(::eventfd(0, EFD_CLOEXEC)) {}

XdpServer::~XdpServer() {
  stop();
  publisher_.remove_reader(slot_);
}

void XdpServer::start() {
  waits_.push_back({stopping_.get(), POLLIN, 0});
  for (const XdpSocket* socket : sockets_) waits_.push_back({socket->fd(), POLLIN, 0});
  thread_ = start_thread("dns-xdp", [this] { run(); });
}

void XdpServer::stop() {
  if (!thread_.joinable()) return;
  stop_.store(true, std::memory_order_release);
  ::eventfd_write(stopping_.get(), 1);
  thread_.join();
}

void XdpServer::run() {
  while (!stop_.load(std::memory_order_acquire)) {
    if (serve_all() == 0) wait();
  }
  for (int i = 0; i < kLastXdpBatches && serve_all() > 0; ++i) {
  }
}

uint32_t XdpServer::serve_all() {
  const PinnedTables tables(slot_);
  if (tables.get() == nullptr) return 0;
  worker_->now_s = static_cast<uint32_t>(clock_ns(CLOCK_REALTIME_COARSE) / kNsPerS);
  uint32_t frames = 0;
  for (XdpSocket* socket : sockets_) frames += socket->serve(*tables.get(), *worker_);
  return frames;
}

void XdpServer::wait() {
  const bool again =
      std::any_of(sockets_.begin(), sockets_.end(), [](const XdpSocket* socket) { return socket->looks_again(); });
  ::poll(waits_.data(), waits_.size(), again ? kLookAgainMs : -1);
}

}  // namespace tidegate::dns
