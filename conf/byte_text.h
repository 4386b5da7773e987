// SPDX-License-Identifier: Apache-2.0
// Bytes as text: the data that a probe sends and expects may be binary, and a document is text. Pure.
#pragma once

#include <string>
#include <string_view>

#include "core/result.h"

namespace tidegate {

// \r, \n, \t, \0, \\ and \xHH (two hex digits) mean a byte each. Everything else means itself. Another escape is an
// error.
Result<std::string> bytes_of_text(std::string_view text);

// The text of these bytes, in printable ASCII. bytes_of_text() reads it back.
std::string text_of_bytes(std::string_view bytes);

}  // namespace tidegate
