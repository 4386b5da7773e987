// SPDX-License-Identifier: Apache-2.0
// Finds where brackets or quotes that are never closed begin. The parser notices them only at the end of the text, far
// from the mistake.
#pragma once

#include <cstddef>
#include <optional>
#include <string_view>

namespace tidegate {

// Returns the offset of the first bracket or quote of a YAML text that nothing closes. Pure; linear in the text.
std::optional<size_t> find_unclosed(std::string_view text);

}  // namespace tidegate
