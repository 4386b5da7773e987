// SPDX-License-Identifier: Apache-2.0
#include "l4/buffer_stock.h"

#include <fmt/format.h>
#include <rte_mbuf.h>

#include <algorithm>

#include "l4/drivers.h"

namespace tidegate::l4 {
namespace {

constexpr unsigned kBufferCache = 256;

}  // namespace

rte_mempool* make_buffers(const std::string& name, unsigned count, uint32_t bytes, int node) {
  return rte_pktmbuf_pool_create(name.c_str(), count, kBufferCache, 0, static_cast<uint16_t>(bytes), node);
}

Result<void> BufferStock::add(unsigned count, uint32_t bytes) {
  rte_mempool* buffers = make_buffers(fmt::format("stock{}", made_++), count, bytes, SOCKET_ID_ANY);
  if (buffers == nullptr) return fail(fmt::format("packet buffers: {}; raise l4.memory", dpdk_error(0)));
  pools_.push_back({count, bytes, buffers});
  return {};
}

rte_mempool* BufferStock::take(unsigned count, uint32_t bytes) {
  const auto fits = [&](const Pool& pool) { return pool.count == count && pool.bytes == bytes; };
  const auto pool = std::find_if(pools_.begin(), pools_.end(), fits);
  if (pool == pools_.end()) return nullptr;
  rte_mempool* const buffers = pool->buffers;
  pools_.erase(pool);
  return buffers;
}

void BufferStock::clear() {
  for (const Pool& pool : pools_) rte_mempool_free(pool.buffers);
  pools_.clear();
}

}  // namespace tidegate::l4
