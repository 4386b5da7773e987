// SPDX-License-Identifier: Apache-2.0
// Any bytes as a message, as JSON that becomes one, and as a schema: results are within their bound and can be read
// again.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "conf/model/common.h"
#include "conf/text.h"
#include "core/protobuf.h"
#include "l7/policy/json_change.h"
#include "tests/unit/made_schema.h"

namespace {

using namespace tidegate;
using namespace tidegate::l7;

constexpr size_t kMost = 4'096;
const std::string kMessage = "m.All";

void demand(bool holds) {
  if (!holds) std::abort();
}

const Blob& schema_file() {
  static const Blob file = [] {
    const std::string bytes = test::made_schema(R"(
        syntax = "proto3"; package m;
        import "google/protobuf/timestamp.proto"; import "google/protobuf/struct.proto";
        import "google/protobuf/any.proto"; import "google/protobuf/wrappers.proto";
        enum Kind { NONE = 0; ONE = 1; }
        message All {
          int64 a = 1; string b = 2; bytes c = 3; double d = 4; bool e = 5; Kind f = 6; All g = 7;
          repeated uint32 h = 8; map<string, int32> i = 9; repeated All j = 10; fixed32 k = 11; sint64 l = 12;
          google.protobuf.Timestamp m = 13; google.protobuf.Value n = 14; google.protobuf.Any o = 15;
          google.protobuf.Int32Value p = 16; oneof q { string r = 17; float s = 18; } repeated string t = 19;
        })");
    return Blob{"schema", "fuzz", std::make_shared<const std::string>(bytes)};
  }();
  return file;
}

void read_message(const ProtobufSchema& schema, std::string_view body) {
  std::string json;
  if (schema.to_json(kMessage, body, {kMost, kMost}, json) == ProtobufFault::none) {
    demand(json.size() <= kMost);
  }
  TransformJson terms;
  terms.from = BodyForm::protobuf;
  terms.schema = schema_file();
  terms.message = kMessage;
  terms.most = kMost;
  terms.edits.emplace_back().redact = "b";
  Arena arena;
  RequestHead request;
  std::string out;
  const policy::TemplateValues values{.request = request};
  if (policy::JsonChange(terms, *read_content(terms)).change(body, values, out, arena) != policy::JsonFault::none)
    return;
  demand(out.size() <= kMost && policy::scan_json(out) && find_unreadable(out) == std::string_view::npos);
}

void write_message(const ProtobufSchema& schema, std::string_view json) {
  std::string body;
  if (schema.from_json(kMessage, json, {kMost, kMost}, body) != ProtobufFault::none) return;
  demand(body.size() <= kMost);
  std::string again;
  demand(schema.to_json(kMessage, body, {64 * kMost, 64 * kMost}, again) == ProtobufFault::none);
  std::string twice;
  demand(schema.from_json(kMessage, again, {64 * kMost, 64 * kMost}, twice) == ProtobufFault::none);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const auto schema = *ProtobufSchema::shared(schema_file().hash, *schema_file().bytes);
  if (size == 0) return 0;
  const std::string_view rest(reinterpret_cast<const char*>(data) + 1, size - 1);
  if (data[0] == 's') {
    const auto read = ProtobufSchema::read(rest);
    if (!read) return 0;
    for (const std::string& message : (*read)->messages()) {
      std::string json;
      demand((*read)->has(message));
      (*read)->to_json(message, rest, {kMost, kMost}, json);
    }
  } else if (data[0] == 'j') {
    write_message(*schema, rest);
  } else {
    read_message(*schema, rest);
  }
  return 0;
}
