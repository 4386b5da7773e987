// SPDX-License-Identifier: Apache-2.0
// The form of single objects; conf/document.h has the calls that take a document apart and put it together.
#pragma once

#include <memory>
#include <string>

#include "conf/document.h"

namespace tidegate {

constexpr const char* kOrderKind = "order";  // of the object that keeps the order of a list's names
constexpr const char* kFileKind = "file";

// A list element from its object, as a document of its own. Null when it is no JSON.
std::unique_ptr<Document> parse_object(const std::string& bytes);

}  // namespace tidegate
