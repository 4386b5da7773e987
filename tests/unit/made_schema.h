// SPDX-License-Identifier: Apache-2.0
// Descriptors of Protobuf for tests, as protoc writes them.
#pragma once

#include <string>
#include <string_view>

namespace tidegate::test {

// The FileDescriptorSet of one file of a schema. What it imports of google/protobuf (timestamp, struct, any, wrappers)
// is in it, unless `alone`. Empty if the text is no schema.
std::string made_schema(std::string_view text, bool alone = false);

}  // namespace tidegate::test
