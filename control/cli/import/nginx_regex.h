// SPDX-License-Identifier: Apache-2.0
// nginx's regular expressions about paths. nginx matches the decoded path; a route matches the path as requests have
// it, in which some characters are % escapes. So each character and each class of an expression becomes both spellings.
#pragma once

#include <string>
#include <string_view>

#include "core/result.h"

namespace tidegate::cli {

// A regular expression of RE2 that takes a whole normalised path where `pattern` (of PCRE, as a location has it) takes
// a part of the path that it stands for. A slash is always a slash: an escaped one is none. Error: it cannot be said,
// with why. Pure.
Result<std::string> nginx_path_regex(std::string_view pattern, bool ignore_case);

}  // namespace tidegate::cli
