// SPDX-License-Identifier: Apache-2.0
// HttpDnsContext: the arguments of an answer to one HTTPDNS request, in addition to the request.
#pragma once

#include <cstdint>
#include <span>

#include "conf/model.h"
#include "core/address_table.h"
#include "dns/query/query.h"

namespace tidegate::dns {

// Borrows everything.
struct HttpDnsContext {
  const Client& client;
  const Tables& tables;
  Worker& worker;
  std::span<uint8_t> scratch;       // room for one DNS answer
  uint64_t now_s = 0;               // realtime
  uint64_t now_ns = 0;              // monotonic
  AddressTable* clients = nullptr;  // the clients' quotas; null: this client has no quota

  const Model& model() const { return *tables.authority->model; }
};

}  // namespace tidegate::dns
