// SPDX-License-Identifier: Apache-2.0
// The encoding of the records in the state store. They are JSON, because people may read them with mdb_dump. Health
// records are binary: there may be one for each of 10,000 backends, and all of them are read at each change.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "conf/state_store.h"

namespace tidegate {

// The record of a version. It leaves out the number, which is the key, and the entries, which are stored separately.
std::string encode_version(const Manifest& manifest);
Result<Manifest> decode_version(uint64_t version, std::string_view record);

std::string encode_override(const Override& record);
Result<Override> decode_override(std::string_view record);

std::string encode_verdict(const HealthVerdict& record);  // 1: up, 0: down, 2: drains; since_ns 8 big-endian; reason
Result<HealthVerdict> decode_verdict(std::string_view record);

std::string encode_load(const SiteLoad& record);
Result<SiteLoad> decode_load(std::string_view record);

std::string encode_found_name(const FoundName& record);
Result<FoundName> decode_found_name(std::string_view record);

// The live state of ordered certificates, as records of the database `issued`:
//   certificate/NAME  -> JSON; "objects" in it are the hashes of its chain and its key
//   account/DIRECTORY -> JSON; "objects" has the hash of the account's key
//   staple/NAME       -> JSON; "objects" has the hash of an answer of OCSP, if one is shown
//   proof/KEY         -> the text of the proof
using IssuedRecords = std::map<std::string, std::string>;
IssuedRecords encode_issued(const LiveState& live_state);
Result<void> decode_issued(const IssuedRecords& records, LiveState& live_state);
// The hashes of the objects that such a record keeps in the state, in hex. Empty for a record that no writer made.
std::vector<std::string> objects_of_issued(std::string_view key, std::string_view record);

std::string encode_purge(const Purge& purge);  // without the sequence, which is the key; the same below
Result<Purge> decode_purge(uint64_t sequence, std::string_view record);

std::string encode_audit(const AuditRecord& record);
Result<AuditRecord> decode_audit(uint64_t sequence, std::string_view record);

}  // namespace tidegate
