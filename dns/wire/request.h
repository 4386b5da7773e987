// SPDX-License-Identifier: Apache-2.0
// Request: one query message, parsed and checked (RFC 1035 §4.1, RFC 6891, RFC 9619). Pure; it lives on the stack.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "dns/wire/edns.h"
#include "dns/wire/outcome.h"
#include "dns/wire/wire.h"

namespace tidegate::dns {

struct Request {
  std::span<const uint8_t> message;  // borrowed
  uint16_t flags = 0;
  uint16_t type = 0;
  uint16_t klass = 0;
  size_t question_end = 0;  // 0: the question could not be read
  Name name;                // set only if there is a question
  bool has_edns = false;
  Edns edns;

  uint8_t opcode() const { return static_cast<uint8_t>((flags & header::kOpcodeMask) >> header::kOpcodeShift); }
};

// Returns nullopt if the query must be answered, otherwise how it ends. `request` has everything that was read before
// the fault.
std::optional<QueryOutcome> parse_request(std::span<const uint8_t> message, Request& request);

// Writes a query of our own, for HTTPDNS and explain, which use the same answer() as clients. Returns its length. `out`
// must have room for a header, a name and four bytes.
size_t write_query(std::span<uint8_t> out, std::span<const uint8_t> wire_name, uint16_t type);

}  // namespace tidegate::dns
