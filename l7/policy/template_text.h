// SPDX-License-Identifier: Apache-2.0
// The texts with variables of conf/policy/template.h, filled in for one request. Pure: values in, text out, in the
// arena.
//
// Threads: any.
#pragma once

#include <optional>
#include <string_view>

#include "conf/policy/template.h"
#include "core/regex.h"
#include "l7/route/router.h"
#include "l7/wire/arena.h"
#include "l7/wire/message.h"

namespace tidegate::l7 {

struct Exchange;

namespace policy {

// The values of the variables. Views are borrowed for a call.
struct TemplateValues {
  const RequestHead& request;  // as the client sent it
  const RouteParameters* parameters = nullptr;
  std::string_view client = {}, scheme = {}, route = {}, request_id = {}, identity = {}, tls_version = {};
  std::string_view json = {};    // the body, if the text is for a body
  std::string_view claims = {};  // of the client's token, as JSON
  uint16_t port = 0;             // 0: not known
  uint16_t status = 0;           // of the answer; 0: there is none
};
TemplateValues values_of(const Exchange& exchange);

// The place of the text. The place decides how values are escaped: a value must not be able to end the place where it
// is inserted.
enum class TemplateUse : uint8_t {
  field,  // as they are
  path,   // percent-encoded; a value that comes from the path is inserted as it is
  json,   // between two quotes of a JSON text; a value that comes from the body is inserted as a JSON value
  query,  // percent-encoded; a value that comes from the query is inserted as it is
};

// Returns nothing if the result would be longer than `most` bytes. A variable without a value is empty. `match`: of the
// text's own regular expression; null: it has none.
std::optional<std::string_view> expand(const TextTemplate& text, const TemplateValues& values,
                                       const Regex::Match* match, TemplateUse use, size_t most, Arena& arena);

// The value of the first parameter with that name, as it is written in the query. Empty if there is none.
std::string_view query_parameter(std::string_view query, std::string_view name);
// True if a name in a query, which may have escapes, equals `name`.
bool is_parameter_named(std::string_view written, std::string_view name);

}  // namespace policy
}  // namespace tidegate::l7
