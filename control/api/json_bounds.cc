// SPDX-License-Identifier: Apache-2.0
#include "control/api/json_bounds.h"

#include <fmt/format.h>

#include <algorithm>
#include <unordered_set>
#include <vector>

#include "conf/names.h"

namespace tidegate {

namespace {

// RFC 8259 §4 lets the reader choose one of the values. Two readers that choose differently would see two documents.
struct RepeatedKey {
  std::string key;
};

}  // namespace

size_t json_depth(std::string_view text) {
  size_t depth = 0, deepest = 0;
  bool quoted = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quoted) {
      if (c == '\\') ++i;
      if (c == '"') quoted = false;
    } else if (c == '"') {
      quoted = true;
    } else if (c == '[' || c == '{') {
      deepest = std::max(deepest, ++depth);
    } else if ((c == ']' || c == '}') && depth > 0) {
      --depth;
    }
  }
  return deepest;
}

Result<nlohmann::json> parse_json(std::string_view text) {
  if (json_depth(text) > kMaxJsonDepth) return fail(fmt::format("nested deeper than {} levels", kMaxJsonDepth));
  std::vector<std::unordered_set<std::string>> open_objects;
  const auto refuse_twice = [&open_objects](int, nlohmann::json::parse_event_t event, nlohmann::json& parsed) {
    using Event = nlohmann::json::parse_event_t;
    if (event == Event::object_start) open_objects.emplace_back();
    if (event == Event::object_end) open_objects.pop_back();
    if (event == Event::key && !open_objects.back().insert(parsed.get_ref<const std::string&>()).second) {
      throw RepeatedKey{parsed.get<std::string>()};
    }
    return true;
  };
  try {
    return nlohmann::json::parse(text, refuse_twice);
  } catch (const RepeatedKey& repeated) {
    return fail(fmt::format("the key {} stands twice in one object", in_quotes(repeated.key)));
  } catch (const nlohmann::json::exception& error) {
    // A number beyond any double is not a parse_error. The library's text begins with "[json.exception.parse_error.101]
    // ". The rest has the line, the column and what was expected.
    std::string_view message = error.what();
    const size_t end = message.find("] ");
    if (end != std::string_view::npos) message.remove_prefix(end + 2);
    return fail(std::string(message));
  }
}

std::string dump(const nlohmann::json& value, int indent) {
  return value.dump(indent, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::string string_member(const nlohmann::json& object, const char* key, std::string otherwise) {
  if (!object.is_object()) return otherwise;
  const auto member = object.find(key);
  return member != object.end() && member->is_string() ? member->get<std::string>() : otherwise;
}

uint64_t number_member(const nlohmann::json& object, const char* key, uint64_t otherwise) {
  if (!object.is_object()) return otherwise;
  const auto member = object.find(key);
  if (member == object.end() || !member->is_number_integer()) return otherwise;
  if (!member->is_number_unsigned() && member->get<int64_t>() < 0) return otherwise;
  return member->get<uint64_t>();
}

bool bool_member(const nlohmann::json& object, const char* key, bool otherwise) {
  if (!object.is_object()) return otherwise;
  const auto member = object.find(key);
  return member != object.end() && member->is_boolean() ? member->get<bool>() : otherwise;
}

}  // namespace tidegate
