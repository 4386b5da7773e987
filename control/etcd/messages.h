// SPDX-License-Identifier: Apache-2.0
// Requests to etcd's JSON gateway (v3) and its answers, as pure functions. Keys and values travel in base64, 64-bit
// numbers as strings, and members with the value zero or false are absent. Answers come from the network and may
// contain anything.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/result.h"

namespace tidegate::etcd {

struct KeyValue {
  std::string key, value;
  uint64_t create_revision = 0, mod_revision = 0;
  uint64_t lease = 0;  // 0: none
};

struct Range {
  uint64_t revision = 0;  // revision of the whole store when it was read
  std::vector<KeyValue> kvs;
  bool more = false;  // the request's limit left some keys out
};

// A condition for the writes of a transaction.
struct Compare {
  enum class Of { create_revision, mod_revision } of = Of::create_revision;
  std::string key;
  uint64_t equals = 0;  // 0: the key does not exist
};

struct Txn {
  std::vector<Compare> compares;
  std::vector<std::pair<std::string, std::string>> puts;    // written if all conditions hold
  uint64_t lease = 0;                                       // lease for every key that is put; 0: none
  std::vector<std::pair<std::string, std::string>> erases;  // ranges [key, end), erased if all conditions hold
  std::vector<std::string> otherwise_get;                   // keys to read if a condition does not hold
};

struct TxnAnswer {
  bool succeeded = false;
  uint64_t revision = 0;
  std::vector<KeyValue> kvs;  // results of `otherwise_get`
};

struct WatchEvent {
  bool erased = false;
  KeyValue kv;
};

struct WatchAnswer {
  uint64_t revision = 0;
  std::vector<WatchEvent> events;
  bool canceled = false;
  uint64_t compact_revision = 0;  // not 0: the watch began before the oldest revision that etcd still has
};

// The end of the range of all keys that begin with `prefix`.
std::string range_end_of(std::string_view prefix);

nlohmann::json range_request(std::string_view key, std::string_view range_end, uint64_t limit);
nlohmann::json delete_request(std::string_view key, std::string_view range_end);
nlohmann::json txn_request(const Txn& txn);
nlohmann::json watch_request(std::string_view key, std::string_view range_end, uint64_t start_revision);

Result<Range> parse_range(const nlohmann::json& answer);
Result<TxnAnswer> parse_txn(const nlohmann::json& answer);
struct Lease {
  uint64_t id = 0;
  uint64_t ttl_s = 0;  // 0: there is no such lease, or not any more
};
Result<Lease> parse_grant(const nlohmann::json& answer);
Result<Lease> parse_keepalive(const nlohmann::json& answer);
// One line of a watch stream.
Result<WatchAnswer> parse_watch(const nlohmann::json& line);
// The sentence in an answer that reports an error, with its gRPC code. Nothing if it reports none.
std::optional<std::string> error_in(const nlohmann::json& answer);

}  // namespace tidegate::etcd
