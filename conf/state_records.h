// SPDX-License-Identifier: Apache-2.0
// How the records of the state store are written. People may meet them through mdb_dump, so they are JSON; health
// words, of which there may be one for each of 10,000 backends, all read at each change, are binary.
#pragma once

#include <string>
#include <string_view>

#include "conf/state_store.h"

namespace tidegate {

// Without version (the key) and entries (kept apart).
std::string encode_version(const Manifest& manifest);
Result<Manifest> decode_version(uint64_t version, std::string_view record);

std::string encode_admin(const AdminWord& word);
Result<AdminWord> decode_admin(std::string_view record);

std::string encode_health(const HealthWord& word);  // up 1, since_ns 8 big-endian, reason
Result<HealthWord> decode_health(std::string_view record);

std::string encode_purge(const Purge& purge);  // without the sequence, which is the key; so below
Result<Purge> decode_purge(uint64_t sequence, std::string_view record);

std::string encode_audit(const AuditRecord& record);
Result<AuditRecord> decode_audit(uint64_t sequence, std::string_view record);

}  // namespace tidegate
