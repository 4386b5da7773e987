// SPDX-License-Identifier: Apache-2.0
#include "control/api/bundle.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "control/api/json_bounds.h"
#include "core/crypto.h"

namespace tidegate {

std::optional<std::string> base64_decode(std::string_view text) {
  if (text.size() % 4 != 0) return std::nullopt;
  size_t padding = 0;
  while (padding < 2 && padding < text.size() && text[text.size() - 1 - padding] == '=') ++padding;
  std::string url_form(text.substr(0, text.size() - padding));
  for (char& c : url_form) {
    if (c == '-' || c == '_') return std::nullopt;  // they belong to the URL-safe alphabet (§5)
    if (c == '+') c = '-';
    if (c == '/') c = '_';
  }
  return base64url_decode(url_form);
}

Result<Bundle> decode_bundle(std::string_view body) {
  const Result<nlohmann::json> parsed = parse_json(body);
  if (!parsed) return fail("the bundle is not JSON: " + parsed.error().message);
  if (!parsed->is_object()) return fail("a bundle is an object {\"file\", \"text\", \"files\"}");
  Bundle bundle;
  bundle.file = "bundle.yaml";
  bool has_text = false;
  for (const auto& [key, value] : parsed->items()) {
    if ((key == "file" || key == "text") && !value.is_string())
      return fail(fmt::format("bundle: {} is not a string", key));
    if (key == "file") {
      bundle.file = value.get<std::string>();
    } else if (key == "text") {
      bundle.text = value.get<std::string>();
      has_text = true;
    } else if (key == "files") {
      if (!value.is_object()) return fail("bundle: files is not an object of path: base64");
      for (const auto& [path, content] : value.items()) {
        std::optional<std::string> bytes;
        if (content.is_string()) bytes = base64_decode(content.get_ref<const std::string&>());
        if (!bytes) return fail(fmt::format("bundle: the content of {} is not base64", path));
        bundle.files[path] = std::make_shared<const std::string>(std::move(*bytes));
      }
    } else {
      return fail(fmt::format("bundle: unknown member {}; expected file, text, files", key));
    }
  }
  if (!has_text) return fail("bundle: text is missing");
  return bundle;
}

std::string encode_bundle(const Bundle& bundle) {
  nlohmann::json files = nlohmann::json::object();
  for (const auto& [path, bytes] : bundle.files) files[path] = base64_encode(*bytes);
  return dump({{"file", bundle.file}, {"text", bundle.text}, {"files", std::move(files)}});
}

}  // namespace tidegate
