// SPDX-License-Identifier: Apache-2.0
// Zone files that include others ($INCLUDE, RFC 1035 §5.1). The included files are inserted into the text once, when
// the file is read. So a version stores and carries the whole zone to other hosts.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace tidegate {

// The content of each included file stands between these two lines, in place of its directive:
//    $BEGIN-INCLUDED "its path" and the origin, if the directive names one
//    $END-INCLUDED
inline constexpr std::string_view kIncludeBegins = "$BEGIN-INCLUDED";
inline constexpr std::string_view kIncludeEnds = "$END-INCLUDED";

// Reads a file by its path relative to the document's folder. Returns null and sets the reason if it cannot be read.
using IncludeReader = std::function<std::shared_ptr<const std::string>(const std::string& path, std::string& error)>;

// True if some line is an $INCLUDE.
bool has_includes(std::string_view text);
// The text with every included file inserted. Null, with the reason, file and line, if a file is missing, lies outside
// the document's folder, includes itself, or is too large.
std::shared_ptr<const std::string> put_includes_in(const std::string& path, std::string_view text,
                                                   const IncludeReader& read, std::string& error);

}  // namespace tidegate
