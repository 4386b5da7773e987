// SPDX-License-Identifier: Apache-2.0
// Bundle: a configuration with the files it names, as one JSON body:
//   {"file": "edge.yaml", "text": "sites: ...", "files": {"www.crt": "<base64>", ...}}
// Pure functions.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "core/result.h"

namespace tidegate {

constexpr const char* kBundleType = "application/vnd.tidegate.bundle+json";

struct Bundle {
  std::string file;                                                 // the document's name, for the places in faults
  std::string text;                                                 // YAML or JSON
  std::map<std::string, std::shared_ptr<const std::string>> files;  // by the path in the document
};

Result<Bundle> decode_bundle(std::string_view body);
std::string encode_bundle(const Bundle& bundle);

// RFC 4648 §4 with padding. Returns nothing for anything else.
std::optional<std::string> base64_decode(std::string_view text);

}  // namespace tidegate
