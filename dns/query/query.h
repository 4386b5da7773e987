// SPDX-License-Identifier: Apache-2.0
// Query: the pure answer function of the DNS plane. Bytes and read-only tables in, bytes out. No socket, clock, lock or
// allocation. The transports know nothing of DNS, and this function knows nothing of the transports.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <span>

#include "core/hash.h"
#include "core/ip.h"
#include "dns/query/tables.h"
#include "dns/wire/edns.h"
#include "dns/wire/outcome.h"
#include "dns/wire/request.h"
#include "dns/wire/wire.h"

namespace tidegate::dns {

enum class QueryTransport : uint8_t { udp, tcp, http };
constexpr size_t kTransportCount = 3;
const char* name(QueryTransport transport);

struct Client {
  IpAddress address;  // unmapped address
  QueryTransport transport = QueryTransport::udp;
};

// The counters of one worker. Only its thread writes them. Any thread may read them for a scrape.
struct Tally {
  using Count = std::atomic<uint64_t>;
  static constexpr size_t kRcodes = 24;

  std::array<Count, kOutcomeCount> outcomes{};
  std::array<Count, kRcodes> rcodes{};
  std::array<Count, kTransportCount> queries{};
  Count truncated{0};
  Count with_edns{0};
  Count with_subnet{0};
  Count failed_open{0};
  Count shed{0};

  static void add(Count& count, uint64_t n = 1) {
    count.store(count.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
  }
};

// A worker's own data, which changes with each answer.
struct alignas(64) Worker {
  explicit Worker(const HashKey& cookie_key) : cookie_secret(cookie_key) {}
  HashKey cookie_secret;
  uint32_t now_s = 0;  // realtime, updated by the transport once a batch
  Tally tally;
  // About the last answer:
  QueryOutcome last_outcome = QueryOutcome::bad_short;
  std::string_view last_note;     // the note in addition to the outcome (note::), or nothing
  bool last_is_personal = false;  // the answer depends on the client: it was steered, or has a cookie
};

// Answers one message. Returns the answer's length in `out`, or 0 if nothing may be sent. Over UDP, `out` must have
// room for kMaxUdpPayload. Other transports use all the room that it has, up to kMaxMessageBytes.
size_t answer(std::span<const uint8_t> in, std::span<uint8_t> out, const Client& client, const Tables& tables,
              Worker& worker);

// The address whose network decides: the client subnet's, if one was sent, else the sender's (RFC 7871 §7.2.1). Borrows
// one of the two.
const IpAddress& located_address(const Request& request, const Client& client);

}  // namespace tidegate::dns
