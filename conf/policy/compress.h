// SPDX-License-Identifier: Apache-2.0
// The keys of compress: which answers are compressed, and by which content codings (RFC 9110 §8.4).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "conf/model/policy.h"

namespace tidegate {

enum class Coding : uint8_t { identity, gzip, br, zstd };
constexpr size_t kCodings = 4;
constexpr const char* kCodingNames[kCodings] = {"identity", "gzip", "br", "zstd"};
constexpr const char* name(Coding coding) { return kCodingNames[static_cast<size_t>(coding)]; }
// Reads a coding's name as in HTTP. Case does not matter; x-gzip is gzip (RFC 9110 §8.4.1.3). Returns nothing for any
// other text.
std::optional<Coding> parse_coding(std::string_view word);

struct CompressPolicy final : PolicyPart {
  std::vector<std::string> codings;  // the first is preferred; empty: zstd, br, gzip
  std::vector<std::string> types;    // empty: those of text (default_compress_types)
  uint64_t minimum = 1'024;          // smaller answers are not compressed, if their length is known; in bytes
  bool store = true;                 // the cache keeps compressed forms of its answers, in memory

  // The codings in the order of preference.
  std::vector<Coding> preference() const;
  std::vector<std::string> media_types() const;
};

// One word of `types`: "text/html", "text/*", "application/*+json".
bool is_type_pattern(std::string_view word);
// True if the pattern matches a Content-Type. Parameters of the type are ignored, and so is case.
bool takes_type(std::string_view pattern, std::string_view content_type);

}  // namespace tidegate
