// SPDX-License-Identifier: Apache-2.0
#include "control/api/parameters.h"

#include <fmt/format.h>

#include <algorithm>

#include "conf/text.h"
#include "control/limits.h"

namespace tidegate {

uint64_t number_parameter(const ApiCall& call, std::string_view name, uint64_t otherwise) {
  const std::optional<std::string> text = call.request().parameter(name);
  return text ? parse_number(*text).value_or(otherwise) : otherwise;
}

std::optional<nlohmann::json> object_body(const ApiCall& call, std::initializer_list<std::string_view> known) {
  Result<nlohmann::json> body = parse_json(call.request().body);
  if (!body) {
    call.respond(problem(400, "bad_json", body.error().message));
    return std::nullopt;
  }
  if (!body->is_object()) {
    call.respond(problem(400, "bad_body", "the body is not a JSON object"));
    return std::nullopt;
  }
  for (const auto& [key, value] : body->items()) {
    const std::string& member = key;
    if (std::find(known.begin(), known.end(), member) != known.end()) continue;
    call.respond(
        problem(400, "unknown_member", fmt::format("unknown member '{}'; known: {}", key, fmt::join(known, ", "))));
    return std::nullopt;
  }
  return std::move(*body);
}

std::optional<std::string> note_member(const ApiCall& call, const nlohmann::json& body, const char* member) {
  const auto note = body.find(member);
  if (note == body.end() || note->is_null()) return std::string();
  const bool is_text = note->is_string() && note->get_ref<const std::string&>().size() <= kMaxNoteBytes &&
                       find_unreadable(note->get_ref<const std::string&>()) == std::string::npos;
  if (is_text) return note->get<std::string>();
  call.respond(
      problem(400, "bad_body",
              fmt::format("\"{}\" is text of at most {} bytes, without control characters", member, kMaxNoteBytes)));
  return std::nullopt;
}

}  // namespace tidegate
