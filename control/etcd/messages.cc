// SPDX-License-Identifier: Apache-2.0
#include "control/etcd/messages.h"

#include <fmt/format.h>

#include "control/api/bundle.h"
#include "control/api/json_bounds.h"
#include "core/crypto.h"
#include "core/http1.h"

namespace tidegate::etcd {

namespace {

using nlohmann::json;

// An array member, or an empty array.
const json& list_member(const json& object, const char* key) {
  static const json empty = json::array();
  if (!object.is_object()) return empty;
  const auto member = object.find(key);
  return member != object.end() && member->is_array() ? *member : empty;
}

const json& object_member(const json& object, const char* key) {
  static const json empty = json::object();
  if (!object.is_object()) return empty;
  const auto member = object.find(key);
  return member != object.end() && member->is_object() ? *member : empty;
}

// A 64-bit number: a string of digits, or a JSON number. Absent means 0. Returns nothing for anything else.
std::optional<uint64_t> whole_number(const json& object, const char* key) {
  const auto member = object.find(key);
  if (member == object.end() || member->is_null()) return 0;
  if (member->is_number_unsigned()) return member->get<uint64_t>();
  if (!member->is_string()) return std::nullopt;
  const std::string& text = member->get_ref<const std::string&>();
  if (text.empty() || text.size() > 20) return std::nullopt;
  uint64_t number = 0;
  for (const char digit : text) {
    if (digit < '0' || digit > '9') return std::nullopt;
    if (__builtin_mul_overflow(number, uint64_t{10}, &number) ||
        __builtin_add_overflow(number, static_cast<uint64_t>(digit - '0'), &number)) {
      return std::nullopt;
    }
  }
  return number;
}

// Returns false if the member is not a number.
bool read_number(const json& object, const char* key, uint64_t& number) {
  const std::optional<uint64_t> read = whole_number(object, key);
  number = read.value_or(0);
  return read.has_value();
}

bool read_bytes(const json& object, const char* key, std::string& bytes) {
  const auto member = object.find(key);
  if (member == object.end()) return true;  // an empty value is left out
  if (!member->is_string()) return false;
  std::optional<std::string> decoded = base64_decode(member->get_ref<const std::string&>());
  if (!decoded) return false;
  bytes = *std::move(decoded);
  return true;
}

Result<KeyValue> parse_kv(const json& object) {
  KeyValue kv;
  const bool sound = object.is_object() && read_bytes(object, "key", kv.key) && read_bytes(object, "value", kv.value) &&
                     read_number(object, "create_revision", kv.create_revision) &&
                     read_number(object, "mod_revision", kv.mod_revision) && read_number(object, "lease", kv.lease);
  if (!sound || kv.key.empty()) return fail("etcd sent a key and value of another form");
  return kv;
}

Result<std::vector<KeyValue>> parse_kvs(const json& range) {
  std::vector<KeyValue> kvs;
  for (const json& object : list_member(range, "kvs")) {
    Result<KeyValue> kv = parse_kv(object);
    if (!kv) return kv.error();
    kvs.push_back(*std::move(kv));
  }
  return kvs;
}

Result<uint64_t> revision_of(const json& answer) {
  const std::optional<uint64_t> revision = whole_number(object_member(answer, "header"), "revision");
  if (!revision) return fail("etcd sent a revision that is no number");
  return *revision;
}

json put_json(std::string_view key, std::string_view value, uint64_t lease) {
  json put = {{"key", base64_encode(key)}, {"value", base64_encode(value)}};
  if (lease != 0) put["lease"] = std::to_string(lease);
  return put;
}

}  // namespace

std::string range_end_of(std::string_view prefix) {
  std::string end(prefix);
  while (!end.empty() && end.back() == '\xff') end.pop_back();
  if (end.empty()) return std::string(1, '\0');  // up to the last key of all
  end.back() = static_cast<char>(end.back() + 1);
  return end;
}

json range_request(std::string_view key, std::string_view range_end, uint64_t limit) {
  json request = {{"key", base64_encode(key)}};
  if (!range_end.empty()) request["range_end"] = base64_encode(range_end);
  if (limit != 0) request["limit"] = std::to_string(limit);
  return request;
}

json delete_request(std::string_view key, std::string_view range_end) {
  return {{"key", base64_encode(key)}, {"range_end", base64_encode(range_end)}};
}

json txn_request(const Txn& txn) {
  json compares = json::array(), puts = json::array(), gets = json::array();
  for (const Compare& compare : txn.compares) {
    const bool created = compare.of == Compare::Of::create_revision;
    compares.push_back({{"key", base64_encode(compare.key)},
                        {"result", "EQUAL"},
                        {"target", created ? "CREATE" : "MOD"},
                        {created ? "create_revision" : "mod_revision", std::to_string(compare.equals)}});
  }
  for (const auto& [key, value] : txn.puts) puts.push_back({{"request_put", put_json(key, value, txn.lease)}});
  for (const auto& [key, end] : txn.erases) puts.push_back({{"request_delete_range", delete_request(key, end)}});
  for (const std::string& key : txn.otherwise_get) {
    gets.push_back({{"request_range", {{"key", base64_encode(key)}}}});
  }
  return {{"compare", std::move(compares)}, {"success", std::move(puts)}, {"failure", std::move(gets)}};
}

json watch_request(std::string_view key, std::string_view range_end, uint64_t start_revision) {
  return {{"create_request",
           {{"key", base64_encode(key)},
            {"range_end", base64_encode(range_end)},
            {"start_revision", std::to_string(start_revision)}}}};
}

Result<Range> parse_range(const json& answer) {
  if (!answer.is_object()) return fail("etcd sent no object");
  Range range;
  Result<uint64_t> revision = revision_of(answer);
  if (!revision) return revision.error();
  range.revision = *revision;
  Result<std::vector<KeyValue>> kvs = parse_kvs(answer);
  if (!kvs) return kvs.error();
  range.kvs = *std::move(kvs);
  range.more = bool_member(answer, "more");
  return range;
}

Result<TxnAnswer> parse_txn(const json& answer) {
  if (!answer.is_object()) return fail("etcd sent no object");
  TxnAnswer parsed;
  Result<uint64_t> revision = revision_of(answer);
  if (!revision) return revision.error();
  parsed.revision = *revision;
  parsed.succeeded = bool_member(answer, "succeeded");
  for (const json& response : list_member(answer, "responses")) {
    Result<std::vector<KeyValue>> kvs = parse_kvs(object_member(response, "response_range"));
    if (!kvs) return kvs.error();
    for (KeyValue& kv : *kvs) parsed.kvs.push_back(std::move(kv));
  }
  return parsed;
}

Result<Lease> parse_grant(const json& answer) {
  Lease lease;
  const bool sound =
      answer.is_object() && read_number(answer, "ID", lease.id) && read_number(answer, "TTL", lease.ttl_s);
  if (!sound || lease.id == 0 || lease.ttl_s == 0) return fail("etcd granted no lease");
  return lease;
}

Result<Lease> parse_keepalive(const json& answer) {
  const json& result = object_member(answer, "result");
  Lease lease;
  if (!read_number(result, "ID", lease.id) || !read_number(result, "TTL", lease.ttl_s)) {
    return fail("etcd answered a renewal in another form");
  }
  return lease;
}

Result<WatchAnswer> parse_watch(const json& line) {
  const auto result = line.is_object() ? line.find("result") : line.end();
  if (!line.is_object() || result == line.end() || !result->is_object()) {
    return fail("etcd sent another line than a watch has");
  }
  WatchAnswer answer;
  Result<uint64_t> revision = revision_of(*result);
  if (!revision) return revision.error();
  answer.revision = *revision;
  answer.canceled = bool_member(*result, "canceled");
  if (!read_number(*result, "compact_revision", answer.compact_revision)) return fail("a revision is no number");
  for (const json& event : list_member(*result, "events")) {
    Result<KeyValue> kv = parse_kv(object_member(event, "kv"));
    if (!kv) return kv.error();
    answer.events.push_back({string_member(event, "type") == "DELETE", *std::move(kv)});
  }
  return answer;
}

std::optional<std::string> error_in(const json& answer) {
  if (!answer.is_object()) return "etcd sent no object";
  const auto error = answer.find("error");
  if (error == answer.end()) return std::nullopt;
  const uint64_t code = number_member(error->is_object() ? *error : answer, error->is_object() ? "grpc_code" : "code");
  const std::string text = error->is_object()   ? string_member(*error, "message", "without a message")
                           : error->is_string() ? error->get<std::string>()
                                                : "without a message";
  return fmt::format("etcd refused ({}): {}", code, text);
}

}  // namespace tidegate::etcd
