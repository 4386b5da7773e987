// SPDX-License-Identifier: Apache-2.0
// Zone files that include others ($INCLUDE, RFC 1035 §5.1): put into the text once, where the file is read, so that
// what a version keeps and carries to other hosts is whole.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace tidegate {

// Each included file stands between these, in place of its directive:
//   $BEGIN-INCLUDED "its path" and the origin, where the directive names one
//   $END-INCLUDED
inline constexpr std::string_view kIncludeBegins = "$BEGIN-INCLUDED";
inline constexpr std::string_view kIncludeEnds = "$END-INCLUDED";

constexpr size_t kMaxZoneIncludes = 200;     // files of one zone, counted each time that they are included
constexpr size_t kMaxZoneIncludeDepth = 10;  // files within files

// By path relative to the document's folder; null and the reason where it cannot be read.
using IncludeReader = std::function<std::shared_ptr<const std::string>(const std::string& path, std::string& error)>;

// True: some line is an $INCLUDE.
bool has_includes(std::string_view text);
// The text with every included file in its place; null and the reason, with file and line, where one is missing, lies
// outside the document's folder, includes itself, or is too much.
std::shared_ptr<const std::string> put_includes_in(const std::string& path, std::string_view text,
                                                   const IncludeReader& read, std::string& error);

}  // namespace tidegate
