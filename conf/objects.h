// SPDX-License-Identifier: Apache-2.0
// The form of single objects. conf/document.h has the functions that split and assemble a document.
#pragma once

#include <memory>
#include <string>

#include "conf/document.h"

namespace tidegate {

constexpr const char* kOrderKind = "order";  // kind of the object that keeps the order of a list's names
constexpr const char* kFileKind = "file";

// Turns the object of a list element into a document of its own. Returns null if it is not JSON.
std::unique_ptr<Document> parse_object(const std::string& bytes);

}  // namespace tidegate
