// SPDX-License-Identifier: Apache-2.0
// Protobuf messages of a schema that is known at run time, as JSON and back, by libprotobuf. Other files use
// libprotobuf only through this one.
//
// The JSON is the one of Protobuf's own rules (protobuf.dev/programming-guides/json): names in lowerCamelCase, which
// are also taken as they are in the schema; 64-bit integers and enumerations as strings; bytes in base64; timestamps
// as RFC 3339. Fields that have their default value are left out.
//
// Threads: any; a schema is immutable. Conversions allocate.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/result.h"

namespace tidegate {

enum class ProtobufFault : uint8_t {
  none,
  malformed,  // it is not of the message's type, or nested too deeply
  too_large,  // more than ProtobufBounds
};

// The bounds of one conversion.
struct ProtobufBounds {
  size_t bytes;   // of the result
  size_t values;  // fields, elements and members; libprotobuf takes up to a microsecond for each
};

class ProtobufSchema {
 public:
  // `descriptors`: a google.protobuf.FileDescriptorSet in binary form, as `protoc --include_imports
  // --descriptor_set_out` writes it. An Error names the fault in it.
  static Result<std::shared_ptr<const ProtobufSchema>> read(std::string_view descriptors);
  // Like read(), but if a schema of this hash is still in use, returns that schema. Takes a lock.
  static Result<std::shared_ptr<const ProtobufSchema>> shared(const std::string& hash, std::string_view descriptors);
  ~ProtobufSchema();
  ProtobufSchema(const ProtobufSchema&) = delete;
  ProtobufSchema& operator=(const ProtobufSchema&) = delete;

  // Full names ("shop.v1.Order") of all messages outside of other messages, in the order of the files.
  std::vector<std::string> messages() const;
  bool has(const std::string& message) const;

  // Both write into `out`, which must be empty. `message` must be one that the schema has. After a fault `out` must not
  // be used. Unknown fields of `body` are left out; unknown members of `json` are a fault. Fields of `body` that are
  // written in several places are merged, as a parser does; within a google.protobuf.Any they are malformed.
  ProtobufFault to_json(const std::string& message, std::string_view body, ProtobufBounds most, std::string& out) const;
  ProtobufFault from_json(const std::string& message, std::string_view json, ProtobufBounds most,
                          std::string& out) const;

 private:
  struct Types;
  explicit ProtobufSchema(std::unique_ptr<Types> types);
  std::unique_ptr<Types> types_;
};

}  // namespace tidegate
