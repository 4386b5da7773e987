// SPDX-License-Identifier: Apache-2.0
// Query: the pure answer function of the DNS plane. Bytes and read-only tables in, bytes out. No socket, clock, lock or
// allocation; the transports know nothing of DNS and this knows nothing of them.
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

enum class Transport : uint8_t { udp, tcp, http };
constexpr size_t kTransportCount = 3;
const char* name(Transport transport);

struct Client {
  IpAddress address;  // unmapped
  Transport transport = Transport::udp;
};

// What one worker has counted. Written by its thread alone, read by whoever scrapes.
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

// A worker's own: everything that answering changes.
struct alignas(64) Worker {
  explicit Worker(const HashKey& cookie_key) : cookie_secret(cookie_key) {}
  HashKey cookie_secret;
  uint32_t now_s = 0;  // realtime, refreshed by the transport once a batch
  Tally tally;
  // Of the last answer:
  Outcome last_outcome = Outcome::bad_short;
  std::string_view last_note;     // what was said beside the outcome (note::), or nothing
  bool last_is_personal = false;  // it depends on who asked: it was steered, or holds a cookie
};

// Answers one message; returns the answer's length in `out`, or 0 when nothing may be sent. `out` has room for
// kMaxUdpPayload over UDP; over the others as much as it has is used, up to kMaxMessageBytes.
size_t answer(std::span<const uint8_t> in, std::span<uint8_t> out, const Client& client, const Tables& tables,
              Worker& worker);

// Whose network decides: the client subnet's, if one was sent, else the sender's (RFC 7871 §7.2.1).
// Borrows one of the two.
const IpAddress& located_address(const Request& request, const Client& client);

}  // namespace tidegate::dns
