// SPDX-License-Identifier: Apache-2.0
// Makes transforms from any texts and patterns, and changes requests with any bytes by them. The result must be one
// message: no text may end a field, a path, a parameter or the place where it is inserted.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "conf/limits.h"
#include "l7/limits.h"
#include "l7/policy/transformer.h"
#include "tests/fuzz/l7/input_lines.h"

namespace {

using namespace tidegate;
using namespace tidegate::l7;

void demand(bool holds) {
  if (!holds) std::abort();
}

bool is_good_text(const std::string& text) { return static_cast<bool>(parse_template(text)); }

}  // namespace

// Lines: the path's text, a pattern, a field's text, the request's path, its query, a field of it, claims.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  InputLines input(data, size);
  TransformPolicy part;
  const std::string path_text = input.line(), pattern = input.line(), field_text = input.line();
  const std::string path = input.line(), query = input.line(), value = input.line();
  if (!is_good_text(path_text) || !is_good_text(field_text)) return 0;
  if (pattern.size() > 200 || (!pattern.empty() && !Regex::compile(pattern, kRegexMemoryBytes))) return 0;
  part.path = TransformPath{path_text, "", pattern};
  part.host = field_text;
  TransformEdit set, replace;
  set.set = "X-Set";
  set.value = field_text;
  replace.replace = pattern.empty() ? "" : "x-a";
  replace.remove = pattern.empty() ? "x-a" : "";
  replace.value = field_text;
  replace.match = pattern;
  part.request_headers = part.response_headers = part.query = {set, replace};
  part.query[1].replace = pattern.empty() ? "" : "q";

  Arena arena;
  RequestHead request;
  request.method = "GET";
  request.authority = request.host = "a.test";
  request.path = normalise_path(path, arena);
  request.query = query;
  request.has_query = true;
  const auto is_target = [](std::string_view text) {
    return std::all_of(text.begin(), text.end(), [](char c) { return c > ' ' && c != 0x7f; });
  };
  // A path that a parser would accept.
  if (path.empty() || path[0] != '/' || request.path.empty() || !is_target(request.path) || !is_target(query)) return 0;
  if (request.path.find_first_of("?#") != std::string_view::npos || query.find('#') != std::string_view::npos) return 0;
  if (!http1::is_field_value(value)) return 0;
  request.fields.add({"x-a", value});
  RouteParameters parameters;
  parameters.items[0] = {"id", std::string_view(request.path).substr(1)};
  parameters.count = 1;

  const policy::Transformer transformer(part, *read_content(part));
  const policy::TemplateValues values{.request = request, .parameters = &parameters, .claims = input.rest()};
  RequestHead head = request;
  std::string_view host;
  if (transformer.change_request(values, head, host, arena) == policy::TransformFault::none) {
    demand(head.path.starts_with('/') && is_target(head.path) && is_target(head.query));
    demand(head.path.find_first_of("?#") == std::string_view::npos && head.query.find('#') == std::string_view::npos);
    demand(head.path.size() + head.query.size() <= kTransformTargetBytes);
    demand(normalise_path(head.path, arena) == head.path);
    demand(host.empty() || !host_of_authority(host, arena).empty());
    for (const auto& field : head.fields) demand(http1::is_field_value(field.value));
  }
  FieldList fields = request.fields;
  static_cast<void>(transformer.change_answer(values, fields, arena));
  for (const auto& field : fields) demand(http1::is_field_value(field.value));
  return 0;
}
