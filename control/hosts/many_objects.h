// SPDX-License-Identifier: Apache-2.0
// Many objects in one call between controls: POST /v1/objects with a JSON list of hashes. The answer has the objects in
// the order in which they were asked for, as many as fit: "<hash> <size>\n<bytes>" one after the other.
//
// Pure: any thread.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/result.h"

namespace tidegate {

using HashedObjects = std::vector<std::pair<std::string, std::string>>;  // hash and bytes

std::string encode_hashes(const std::vector<std::string>& hashes);
// Returns an Error unless it is a list of 1 to kMaxObjectsAsked hashes.
Result<std::vector<std::string>> decode_hashes(std::string_view body);

void append_object(std::string& answer, std::string_view hash, std::string_view bytes);
// The objects of an answer. An Error if an object does not match its hash, or was not asked for.
Result<HashedObjects> decode_objects(std::string_view answer, const std::vector<std::string>& asked);

}  // namespace tidegate
