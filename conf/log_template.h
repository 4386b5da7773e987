// SPDX-License-Identifier: Apache-2.0
// access_log_format: the text of a line of the access log, with variables in braces. "{{" and "}}" are braces.
//
//   {client} [{time_common}] "{request}" {status} {response_bytes} "{header.referer}"
//
// log_variables.def lists the variables. {header.NAME} and {response_header.NAME} stand for any field, and
// {cookie.NAME} for any cookie.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace tidegate {

enum class LogVariable : uint8_t {
#define TIDEGATE_LOG_VARIABLE(word, sentence) word,
#include "conf/log_variables.def"
#undef TIDEGATE_LOG_VARIABLE
  header,           // of the request; `text`: its name in lower case
  response_header,  // as the client gets it
  cookie,           // `text`: its name
  literal,          // `text` itself
};
// The name in the table: "client".
std::string_view name(LogVariable variable);
// The sentence in the table.
std::string_view sentence_of(LogVariable variable);
constexpr size_t kPlainLogVariables = static_cast<size_t>(LogVariable::header);

struct LogPart {
  LogVariable what = LogVariable::literal;
  std::string text;
};

struct LogTemplate {
  std::vector<LogPart> parts;  // at most kLogTemplateParts; empty: the line is JSON

  // The first fault in the text. `detail` is empty if there is none. `offset` is its place, in bytes.
  struct Trouble {
    size_t offset = 0;
    std::string detail, expected, hint;
  };
  // After a Trouble, the parts have no meaning.
  static Trouble parse(std::string_view text, LogTemplate& out);
};

// The table for the key reference.
std::string log_variable_reference();

}  // namespace tidegate
