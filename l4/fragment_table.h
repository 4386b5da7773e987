// SPDX-License-Identifier: Apache-2.0
// FragmentTable: the backends of fragmented datagrams. The first fragment has ports and follows its flow. Later
// fragments have none. They follow the first one by (source, destination, id), and in IPv4 also by the protocol. The
// Next Header field of IPv6 is not part of the key, because it may differ between the fragments of one packet (RFC 8200
// §4.5).
//
// The table is apart from the flow table. So a flood of fragments evicts other fragmented datagrams, but no flow. One
// table per worker; no other thread touches it.
#pragma once

#include <cstdint>
#include <vector>

#include "l4/conn_table.h"

namespace tidegate::l4 {

class FragmentTable {
 public:
  // The time after the first fragment in which later fragments of its datagram may arrive. Receivers wait longer, but
  // in practice fragments that take another path for seconds are lost.
  static constexpr uint32_t kKeepMs = 3'000;

  struct Found {
    BackendId backend = kNoBackend;  // kNoBackend: the first fragment was not seen within kKeepMs
    ServiceId service = kNoService;
  };

  explicit FragmentTable(uint64_t datagrams) : table_(datagrams), services_(table_.capacity()) {}

  // `hash` is FlowHasher::fragments. If the table is full, the datagram seen longest ago is forgotten.
  void remember(uint64_t hash, BackendId backend, ServiceId service, uint32_t now_ms) {
    FlowEntry* entry = table_.find(hash, now_ms);
    if (entry == nullptr) entry = table_.insert(hash, backend, kKeepMs, now_ms);
    entry->backend = backend;
    entry->expires_ms = now_ms + kKeepMs;
    services_[table_.place(*entry)] = service;
  }
  Found find(uint64_t hash, uint32_t now_ms) {
    const FlowEntry* entry = table_.find(hash, now_ms);
    return entry == nullptr ? Found{} : Found{entry->backend, services_[table_.place(*entry)]};
  }
  // Forgets expired datagrams in the next part of the table. One pass through the table takes about kKeepMs.
  void sweep(uint64_t elapsed_ms, uint32_t now_ms) {
    table_.sweep(elapsed_ms * table_.bucket_count() / kKeepMs + 1, now_ms);
  }
  uint64_t live() const { return table_.live(); }

 private:
  ConnTable table_;                  // every entry is embryonic, so the one that expires first is evicted
  std::vector<ServiceId> services_;  // by the entry's place
};

}  // namespace tidegate::l4
