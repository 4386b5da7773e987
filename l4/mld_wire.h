// SPDX-License-Identifier: Apache-2.0
// MLD on the wire: reads queries and writes reports (RFC 3810; RFC 2710 for version 1). Pure functions.
#pragma once

#include <cstddef>
#include <cstdint>

#include "l4/drop_reason.h"
#include "l4/packet_view.h"
#include "l4/wire.h"

namespace tidegate::l4 {

struct MldQuery {
  bool version1 = false;
  IpAddress group;  // all zero means a general query
  uint32_t longest_delay_ms = 0;
};

bool is_mld_query(const uint8_t* frame, const PacketView& view);
DropReason read_mld_query(const uint8_t* frame, const PacketView& view, MldQuery& query);

// The kinds of records in a report, one record for each group. A record names no sources, because packets from every
// source are wanted (RFC 3810 §5.2.12).
enum class MldRecord : uint8_t { is_member = 2, leaves = 3, joins = 4 };

// As many groups as fit into IPv6's smallest MTU, 1,280 bytes.
constexpr size_t kMaxMldRecords = 60;
constexpr size_t kMaxMldFrameBytes = kEthernetBytes + 40 + 8 + 8 + kMaxMldRecords * 20;

// Writes a version 2 report of `count` groups, at most kMaxMldRecords, from the link-local address of `own`. Returns
// its length.
size_t write_mld2_report(uint8_t* out, const Mac& own, MldRecord record, const IpAddress* groups, size_t count);
// Writes a report that joins or leaves one group, for a link whose querier speaks version 1.
size_t write_mld1_report(uint8_t* out, const Mac& own, MldRecord record, const IpAddress& group);

}  // namespace tidegate::l4
