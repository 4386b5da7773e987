// SPDX-License-Identifier: Apache-2.0
#include "conf/log_template.h"

#include <fmt/format.h>

#include <algorithm>

#include "conf/limits.h"
#include "conf/names.h"
#include "conf/text.h"
#include "core/http1.h"

namespace tidegate {
namespace {

struct LogVariableRow {
  std::string_view word, sentence;
};
constexpr LogVariableRow kLogVariables[] = {
#define TIDEGATE_LOG_VARIABLE(word, sentence) {#word, sentence},
#include "conf/log_variables.def"
#undef TIDEGATE_LOG_VARIABLE
};

struct NamedLogVariable {
  std::string_view prefix;
  LogVariable what;
};
constexpr NamedLogVariable kNamedLogVariables[] = {
    {"header.", LogVariable::header},
    {"response_header.", LogVariable::response_header},
    {"cookie.", LogVariable::cookie},
};

using LogTrouble = LogTemplate::Trouble;

LogTrouble named_log_variable(const NamedLogVariable& kind, std::string_view name, size_t offset, LogTemplate& out) {
  if (!http1::is_token(name)) {
    return {
        offset,
        fmt::format("{} is no name of a {}", in_quotes(name), kind.what == LogVariable::cookie ? "cookie" : "field"),
        fmt::format("{{{}NAME}}", kind.prefix),
        {}};
  }
  out.parts.push_back({kind.what, kind.what == LogVariable::cookie ? std::string(name) : lower_case(name)});
  return {};
}

LogTrouble log_variable(std::string_view name, size_t offset, LogTemplate& out) {
  std::vector<std::string_view> known;
  for (size_t i = 0; i < kPlainLogVariables; ++i) {
    if (kLogVariables[i].word == name) {
      out.parts.push_back({static_cast<LogVariable>(i), {}});
      return {};
    }
    known.push_back(kLogVariables[i].word);
  }
  for (const NamedLogVariable& each : kNamedLogVariables) {
    if (name.starts_with(each.prefix)) return named_log_variable(each, name.substr(each.prefix.size()), offset, out);
  }
  return {offset, fmt::format("there is no variable {}", in_quotes(name)),
          "a variable of the access log, {header.NAME}, {response_header.NAME} or {cookie.NAME}",
          did_you_mean(name, known)};
}

constexpr std::string_view kBraceIsDoubled = "a brace itself is written twice: '{{', '}}'";

}  // namespace

std::string_view name(LogVariable variable) { return kLogVariables[static_cast<size_t>(variable)].word; }
std::string_view sentence_of(LogVariable variable) { return kLogVariables[static_cast<size_t>(variable)].sentence; }

LogTemplate::Trouble LogTemplate::parse(std::string_view text, LogTemplate& out) {
  out.parts.clear();
  std::string literal;
  const auto end_literal = [&] {
    if (!literal.empty()) out.parts.push_back({LogVariable::literal, std::move(literal)});
    literal.clear();
  };
  for (size_t at = 0; at < text.size();) {
    const size_t brace = std::min(text.find_first_of("{}", at), text.size());
    literal += text.substr(at, brace - at);
    at = brace;
    if (at == text.size()) break;
    if (at + 1 < text.size() && text[at + 1] == text[at]) {
      literal += text[at];
      at += 2;
      continue;
    }
    if (text[at] == '}') return {at, "a '}' without its '{'", {}, std::string(kBraceIsDoubled)};
    const size_t close = text.find('}', at);
    if (close == std::string_view::npos) return {at, "a '{' is not closed", {}, std::string(kBraceIsDoubled)};
    end_literal();
    if (LogTrouble trouble = log_variable(text.substr(at + 1, close - at - 1), at + 1, out); !trouble.detail.empty()) {
      return trouble;
    }
    at = close + 1;
    if (out.parts.size() > kLogTemplateParts) {
      return {brace, fmt::format("it has more than {} parts", kLogTemplateParts), {}, {}};
    }
  }
  end_literal();
  return {};
}

std::string log_variable_reference() {
  std::string out =
      "\n## Variables of access_log_format\n\n"
      "They stand in braces: `{client}`. A brace itself is written twice. What is empty or unknown is `-`. In values, "
      "`\"`, `\\` and bytes\n"
      "that are no printable ASCII are `\\u00hh`, as in JSON, so a value cannot end the quotes around it and never "
      "breaks a line. Times that end\n"
      "in `_ms` are milliseconds with three digits behind the point.\n\n"
      "| variable | |\n|---|---|\n";
  for (const LogVariableRow& row : kLogVariables) out += fmt::format("| `{{{}}}` | {} |\n", row.word, row.sentence);
  out +=
      "| `{header.NAME}` | That field of the request. |\n"
      "| `{response_header.NAME}` | That field of the answer, as the client got it. |\n"
      "| `{cookie.NAME}` | That cookie of the request. |\n";
  return out;
}

}  // namespace tidegate
