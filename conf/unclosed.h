// SPDX-License-Identifier: Apache-2.0
// Where brackets or quotes that are never closed begin: the parser notices at the end of the text, far from the slip.
#pragma once

#include <cstddef>
#include <optional>
#include <string_view>

namespace tidegate {

// The offset of the first bracket or quote of a YAML text that nothing closes. Pure; linear in the text.
std::optional<size_t> find_unclosed(std::string_view text);

}  // namespace tidegate
