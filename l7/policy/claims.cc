// SPDX-License-Identifier: Apache-2.0
#include "l7/policy/claims.h"

#include <algorithm>

namespace tidegate::l7::policy {
namespace {

// The member of this name. Nothing if the object has no such member, or has it twice.
std::optional<JsonView> only_member(const JsonView& object, std::string_view wanted, Arena& arena) {
  std::optional<JsonView> found;
  for (JsonWalk walk(object); walk.next();) {
    std::string_view name = walk.name();
    if (name.find('\\') != std::string_view::npos) {
      const JsonView quoted{JsonView::Kind::string, {name.data() - 1, name.size() + 2}};
      name = json_text(quoted, arena).value_or(std::string_view());
    }
    if (name != wanted) continue;
    if (found) return std::nullopt;
    found = walk.value();
  }
  return found;
}

}  // namespace

std::optional<JsonView> find_claim(std::string_view claims, std::string_view name, Arena& arena) {
  std::optional<JsonView> at = scan_json(claims);
  if (!at || at->kind != JsonView::Kind::object) return std::nullopt;
  if (const std::optional<JsonView> plain = only_member(*at, name, arena)) return plain;
  for (size_t begin = 0; begin <= name.size();) {
    const size_t end = std::min(name.find('.', begin), name.size());
    if (at->kind != JsonView::Kind::object) return std::nullopt;
    at = only_member(*at, name.substr(begin, end - begin), arena);
    if (!at) return std::nullopt;
    begin = end + 1;
  }
  return at;
}

bool claim_has(const JsonView& claim, const std::vector<std::string>& wanted, Arena& arena) {
  const auto is_wanted = [&](const JsonView& value) {
    std::string_view text = value.text;
    if (value.kind == JsonView::Kind::object || value.kind == JsonView::Kind::array) return false;
    if (value.kind == JsonView::Kind::string) {
      const std::optional<std::string_view> decoded = json_text(value, arena);
      if (!decoded) return false;
      text = *decoded;
    }
    return std::find(wanted.begin(), wanted.end(), text) != wanted.end();
  };
  if (claim.kind != JsonView::Kind::array) return is_wanted(claim);
  for (JsonWalk walk(claim); walk.next();) {
    if (is_wanted(walk.value())) return true;
  }
  return false;
}

}  // namespace tidegate::l7::policy
