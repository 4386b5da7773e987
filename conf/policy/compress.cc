// SPDX-License-Identifier: Apache-2.0
#include "conf/policy/compress.h"

#include <fmt/format.h>

#include <algorithm>

#include "conf/field_builders.h"
#include "conf/limits.h"
#include "conf/model.h"
#include "conf/names.h"
#include "conf/policy/kind.h"
#include "core/http1.h"

namespace tidegate {
namespace {

using namespace fields;

constexpr Coding kPreference[] = {Coding::zstd, Coding::br, Coding::gzip};
constexpr const char* kTypes[] = {
    "text/*",          "application/json",  "application/*+json", "application/javascript",
    "application/xml", "application/*+xml", "application/wasm",   "image/svg+xml"};

const Section& compress_section() {
  static const Section section{
      "compress",
      {
          text("codings", &CompressPolicy::codings,
               "`zstd`, `br` and `gzip`, the preferred one first. The client's weights come before this order. Without "
               "the key, all three in this order.",
               16),
          text("types", &CompressPolicy::types,
               "Media types of answers that are compressed: `text/html`, `text/*`, `application/*+json`. Without the "
               "key: `text/*`, `application/json`, `application/*+json`, `application/javascript`, `application/xml`, "
               "`application/*+xml`, `application/wasm`, `image/svg+xml`.",
               128),
          size("minimum", &CompressPolicy::minimum, {0, 1 * kMB},
               "Shorter answers are left as they are. One whose length is not known at its head is compressed."),
          boolean(
              "store", &CompressPolicy::store,
              "Whether the cache keeps, in its memory, what was compressed of a stored answer, for each coding that "
              "clients ask for. `false`: each client's answer is compressed anew."),
      }};
  return section;
}

void check_codings(Checks& checks, size_t p, const CompressPolicy& compress) {
  for (size_t i = 0; i < compress.codings.size(); ++i) {
    const std::string& word = compress.codings[i];
    const std::vector<std::string_view> known = {kCodingNames + 1, kCodingNames + kCodings};
    if (std::find(known.begin(), known.end(), word) != known.end()) continue;
    checks.refuse({"policies", p, "compress", "codings", i},
                  {"bad_value", fmt::format("{} is no coding", in_quotes(word)), one_of(known),
                   parse_coding(word) == Coding::gzip ? "did you mean 'gzip'?" : did_you_mean(word, known)});
  }
}

void check_compress(Checks& checks, size_t p) {
  const CompressPolicy& compress = *checks.model().policies[p].part<CompressPolicy>("compress");
  check_codings(checks, p, compress);
  if (compress.types.size() > kCompressTypesMost) {
    checks.refuse({"policies", p, "compress", "types"}, {"out_of_range",
                                                         fmt::format("types has {} words", compress.types.size()),
                                                         fmt::format("at most {}", kCompressTypesMost),
                                                         {}});
  }
  for (size_t i = 0; i < compress.types.size(); ++i) {
    if (is_type_pattern(compress.types[i])) continue;
    checks.refuse({"policies", p, "compress", "types", i},
                  {"bad_value",
                   fmt::format("{} is no media type", in_quotes(compress.types[i])),
                   "TYPE/SUBTYPE, TYPE/* or TYPE/*+SUFFIX",
                   {}});
  }
}

}  // namespace

std::optional<Coding> parse_coding(std::string_view word) {
  if (http1::equals_ignore_case(word, "x-gzip")) return Coding::gzip;
  for (size_t i = 0; i < kCodings; ++i) {
    if (http1::equals_ignore_case(word, kCodingNames[i])) return static_cast<Coding>(i);
  }
  return std::nullopt;
}

std::vector<Coding> CompressPolicy::preference() const {
  if (codings.empty()) return {std::begin(kPreference), std::end(kPreference)};
  std::vector<Coding> list;
  for (const std::string& word : codings) {
    if (const std::optional<Coding> coding = parse_coding(word)) list.push_back(*coding);
  }
  return list;
}

std::vector<std::string> CompressPolicy::media_types() const {
  if (types.empty()) return {std::begin(kTypes), std::end(kTypes)};
  return types;
}

bool is_type_pattern(std::string_view word) {
  const size_t slash = word.find('/');
  if (slash == std::string_view::npos || !http1::is_token(word.substr(0, slash))) return false;
  if (word.substr(0, slash).find('*') != std::string_view::npos) return false;
  std::string_view subtype = word.substr(slash + 1);
  if (subtype == "*") return true;
  if (subtype.starts_with("*+")) subtype.remove_prefix(2);
  return http1::is_token(subtype) && subtype.find('*') == std::string_view::npos;
}

bool takes_type(std::string_view pattern, std::string_view content_type) {
  std::string_view type = content_type.substr(0, content_type.find(';'));
  while (!type.empty() && (type.back() == ' ' || type.back() == '\t')) type.remove_suffix(1);
  const size_t star = pattern.find('*');
  if (star == std::string_view::npos) return http1::equals_ignore_case(pattern, type);
  const std::string_view before = pattern.substr(0, star), after = pattern.substr(star + 1);
  return type.size() > before.size() + after.size() &&
         http1::equals_ignore_case(before, type.substr(0, before.size())) &&
         http1::equals_ignore_case(after, type.substr(type.size() - after.size()));
}

PolicyKind compress_policy_kind() {
  return policy_kind<CompressPolicy>("compress", "Answers are compressed for clients that take it.", compress_section(),
                                     check_compress);
}

}  // namespace tidegate
