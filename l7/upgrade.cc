// SPDX-License-Identifier: Apache-2.0
// How the proxy hands over to another process, and how it takes over from one.
#include <sys/socket.h>

#include <memory>
#include <utility>

#include "l7/policy/table_memory.h"
#include "l7/proxy.h"

namespace tidegate::l7 {

std::vector<LentSocket> Proxy::sockets() const {
  std::vector<LentSocket> lent;
  for (const auto& [bind, sockets] : listening_) {
    for (const int fd : sockets) lent.push_back({{HandOverItemKind::stream, bind}, fd});
  }
  const auto tables = policies_.find<policy::TableMemories>(policy::TableMemories::kRegistryKey);
  for (const int fd : tables ? tables->descriptors() : std::vector<int>()) {
    lent.push_back({{HandOverItemKind::memory, {}}, fd});
  }
  return lent;
}

// Only the cache's disk tier cannot be used by two processes.
void Proxy::let_go(std::function<void(UniqueFd lock)> done) {
  if (!cache_) return done({});
  cache_->let_go([this, done = std::move(done)](UniqueFd lock) {
    // A mailbox copies its functions.
    main_loop_.post([done, lock = std::make_shared<UniqueFd>(std::move(lock))] { done(std::move(*lock)); });
  });
}

void Proxy::take_back() {
  if (cache_) cache_->take_back();
}

void Proxy::leave(std::function<void()> done) {
  listening_.clear();
  auto left = std::make_shared<size_t>(workers_.size());
  for (const std::unique_ptr<Worker>& worker : workers_) {
    worker->leave(plan_->this_node().l7.drain_timeout_ms, [left, done] {
      if (--*left == 0) done();
    });
  }
}

size_t Proxy::connections() const {
  return shared_ ? shared_->admission.connections.load(std::memory_order_relaxed) : 0;
}

void Proxy::inherit(const HandOverItem& item, UniqueFd socket) {
  if (item.kind == HandOverItemKind::memory) {
    return policies_.get<policy::TableMemories>(policy::TableMemories::kRegistryKey)->inherit(std::move(socket));
  }
  if (item.kind == HandOverItemKind::stream) held_ports_.adopt(item.endpoint, SOCK_STREAM, std::move(socket));
}

}  // namespace tidegate::l7
