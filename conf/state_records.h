// SPDX-License-Identifier: Apache-2.0
// How the records of the state store are written. People may meet them through mdb_dump, so they are JSON; health
// records of live state, of which there may be one for each of 10,000 backends, all read at each change, are binary.
#pragma once

#include <string>
#include <string_view>

#include "conf/state_store.h"

namespace tidegate {

// Without version (the key) and entries (kept apart).
std::string encode_version(const Manifest& manifest);
Result<Manifest> decode_version(uint64_t version, std::string_view record);

std::string encode_override(const Override& record);
Result<Override> decode_override(std::string_view record);

std::string encode_verdict(const HealthVerdict& record);  // up 1, since_ns 8 big-endian, reason
Result<HealthVerdict> decode_verdict(std::string_view record);

std::string encode_purge(const Purge& purge);  // without the sequence, which is the key; so below
Result<Purge> decode_purge(uint64_t sequence, std::string_view record);

std::string encode_audit(const AuditRecord& record);
Result<AuditRecord> decode_audit(uint64_t sequence, std::string_view record);

}  // namespace tidegate
