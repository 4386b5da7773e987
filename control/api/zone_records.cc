// SPDX-License-Identifier: Apache-2.0
#include "control/api/zone_records.h"

#include <fmt/format.h>

#include "control/api/json_bounds.h"
#include "control/limits.h"

namespace tidegate {

namespace {

using nlohmann::json;

void refuse(std::vector<Fault>& faults, std::string pointer, std::string detail, std::string expected) {
  add_fault(faults, {"bad_body", std::move(pointer), {}, 0, 0, std::move(detail), std::move(expected), {}});
}

void read_data(const json& data, dns::RecordChange& change, std::vector<Fault>& faults) {
  constexpr const char* kExpected = "a list of texts, each one record's data as a zone file has it";
  if (!data.is_array() || data.empty()) return refuse(faults, "/data", "\"data\" is no list of records", kExpected);
  if (data.size() > kMaxRecordsOfSet) {
    return refuse(faults, "/data", fmt::format("a set of {} records", data.size()),
                  fmt::format("at most {} records", kMaxRecordsOfSet));
  }
  for (size_t i = 0; i < data.size(); ++i) {
    if (data[i].is_string()) {
      change.data.push_back(data[i].get<std::string>());
    } else {
      refuse(faults, fmt::format("/data/{}", i), "a record's data is a text", "like \"192.0.2.1\" or \"10 mail\"");
    }
  }
}

}  // namespace

json to_json(const dns::RecordSet& set) {
  return {{"name", set.name}, {"type", set.type}, {"ttl", set.ttl_s},
          {"data", set.data}, {"file", set.file}, {"line", set.line}};
}

void read_record_body(std::string_view body, dns::RecordChange& change, std::vector<Fault>& faults) {
  const Result<json> parsed = parse_json(body);
  if (!parsed) return refuse(faults, "", parsed.error().message, "a JSON object");
  if (!parsed->is_object()) return refuse(faults, "", "the body is no JSON object", "{\"ttl\": 300, \"data\": [...]}");
  for (const auto& [key, value] : parsed->items()) {
    if (key != "ttl" && key != "data") {
      refuse(faults, "/" + key.substr(0, kMaxNoteBytes), fmt::format("unknown member '{}'", key.substr(0, 40)),
             "ttl and data");
    }
  }
  if (const auto ttl = parsed->find("ttl"); ttl != parsed->end() && !ttl->is_null()) {
    if (ttl->is_number_unsigned() && ttl->get<uint64_t>() <= INT32_MAX) {
      change.ttl_s = ttl->get<uint32_t>();
    } else {
      refuse(faults, "/ttl", "the TTL is no number of seconds", "0 to 2147483647 (RFC 2181 §8)");
    }
  }
  const auto data = parsed->find("data");
  read_data(data == parsed->end() ? json() : *data, change, faults);
}

}  // namespace tidegate
