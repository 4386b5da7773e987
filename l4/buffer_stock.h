// SPDX-License-Identifier: Apache-2.0
// Pools of packet buffers, from which devices receive.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/result.h"

struct rte_mempool;

namespace tidegate::l4 {

// Buffers of `bytes` each, on the memory of a NUMA node. Null: there is too little memory.
rte_mempool* make_buffers(const std::string& name, unsigned count, uint32_t bytes, int node);

// Packet buffers that are made before the ports that use them can be opened. To make them takes longer than all the
// rest of an open().
class BufferStock {
 public:
  BufferStock() = default;
  ~BufferStock() { clear(); }
  BufferStock(const BufferStock&) = delete;
  BufferStock& operator=(const BufferStock&) = delete;

  // An Error: there is too little memory.
  Result<void> add(unsigned count, uint32_t bytes);
  // Null: there are none of this count and size. The caller frees them.
  rte_mempool* take(unsigned count, uint32_t bytes);
  // Frees `buffers` later, together with the stock, and never gives them out. To free them takes longer than to close a
  // port.
  void free_later(rte_mempool* buffers) { pools_.push_back({0, 0, buffers}); }
  void clear();

 private:
  struct Pool {
    unsigned count;
    uint32_t bytes;
    rte_mempool* buffers;
  };
  std::vector<Pool> pools_;
  unsigned made_ = 0;
};

}  // namespace tidegate::l4
