// SPDX-License-Identifier: Apache-2.0
// Changes any bodies by any paths and texts: the result must be JSON, within its bound, without the removed members.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "conf/text.h"
#include "l7/policy/json_change.h"
#include "tests/fuzz/l7/input_lines.h"

namespace {

using namespace tidegate;
using namespace tidegate::l7;

void demand(bool holds) {
  if (!holds) std::abort();
}

}  // namespace

// Lines: a path to pick, one to redact, one to rename, its new name, a text, a field of the request; then the body.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  InputLines input(data, size);
  const std::string pick = input.line(), redact = input.line(), rename = input.line(), to = input.line(),
                    text = input.line(), field = input.line();
  if (!parse_template(text) || find_unreadable(to) != std::string_view::npos) return 0;
  for (const std::string* path : {&pick, &redact, &rename}) {
    if (find_unreadable(*path) != std::string_view::npos) return 0;
  }
  RequestHead request;
  request.fields.add({"x-a", field});
  const policy::TemplateValues values{.request = request, .claims = input.rest()};
  for (const bool anew : {false, true}) {
    TransformJson json;
    json.most = 4'096;
    if (anew) {
      json.body = text;
    } else {
      if (!json_path_of(pick).empty()) json.pick = {pick, "a"};
      if (!json_path_of(redact).empty()) json.edits.emplace_back().redact = redact;
      if (!json_path_of(rename).empty() && !to.empty()) {
        json.edits.emplace_back().rename = rename;
        json.edits.back().to = to;
      }
      json.edits.emplace_back().remove = "gone";
      json.edits.emplace_back().set = "a.new";
      json.edits.back().value = text;
    }
    if (anew && text.empty()) continue;
    Arena arena;
    std::string out;
    const policy::JsonChange change(json, *read_content(json));
    if (change.change(input.rest(), values, out, arena) != policy::JsonFault::none) continue;
    demand(out.size() <= json.most && find_unreadable(out) == std::string_view::npos);
    const std::optional<policy::JsonView> made = policy::scan_json(out);
    demand(made.has_value());
    if (anew || made->kind != policy::JsonView::Kind::object || rename.find('.') != std::string::npos || to == "gone") {
      continue;
    }
    for (policy::JsonWalk walk(*made); walk.next();) demand(walk.name() != "gone");
  }
  return 0;
}
