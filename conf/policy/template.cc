// SPDX-License-Identifier: Apache-2.0
#include "conf/policy/template.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "conf/limits.h"
#include "conf/names.h"
#include "conf/text.h"
#include "core/http1.h"
#include "core/percent.h"

namespace tidegate {
namespace {

using What = TemplatePart::What;

struct PlainVariable {
  std::string_view name;
  What what;
};
constexpr PlainVariable kPlainVariables[] = {
    {"client", What::client},           {"port", What::port},         {"host", What::host},
    {"authority", What::authority},     {"path", What::path},         {"query", What::query},
    {"method", What::method},           {"scheme", What::scheme},     {"route", What::route},
    {"request_id", What::request_id},   {"identity", What::identity}, {"status", What::status},
    {"tls.version", What::tls_version},
};
struct NamedVariable {
  std::string_view prefix;
  What what;
};
constexpr NamedVariable kNamedVariables[] = {
    {"path.", What::path_parameter}, {"query.", What::query_parameter},
    {"header.", What::header},       {"cookie.", What::cookie},
    {"jwt.", What::claim},           {"match.", What::group},
    {"json.", What::json},
};

Error unknown_variable(std::string_view name) {
  const std::string hint = variable_hint(name, {});
  return fail(fmt::format("there is no variable {}{}{}", in_quotes(name), hint.empty() ? "" : ": ", hint));
}

Result<TemplatePart> named_variable(const NamedVariable& kind, std::string_view name) {
  if (name.empty()) return fail(fmt::format("{{{}}} needs a name behind the dot", kind.prefix));
  TemplatePart part{kind.what, std::string(name)};
  if (kind.what == What::header) {
    if (!http1::is_token(name)) return fail(fmt::format("{} is no name of a field", in_quotes(name)));
    part.text = lower_case(name);
  }
  if (kind.what == What::group) {
    if (name.size() != 1 || !is_digit(name[0])) return fail("{match.N}: N is 0 to 9");
    part.number = static_cast<uint8_t>(name[0] - '0');
  }
  return part;
}

Result<TemplatePart> parse_variable(std::string_view name) {
  for (const PlainVariable& each : kPlainVariables) {
    if (each.name == name) return TemplatePart{each.what, std::string(name)};
  }
  for (const NamedVariable& each : kNamedVariables) {
    if (name.starts_with(each.prefix)) return named_variable(each, name.substr(each.prefix.size()));
  }
  if (name.empty() || name.find('.') != std::string_view::npos) return unknown_variable(name);
  return TemplatePart{What::path_parameter, std::string(name)};
}

// The literal text before the next variable, with doubled braces read as one. Returns nothing if there is a single
// brace.
std::optional<std::string> take_literal(std::string_view& text) {
  std::string literal;
  while (!text.empty()) {
    const size_t brace = std::min(text.find_first_of("{}"), text.size());
    literal += text.substr(0, brace);
    text.remove_prefix(brace);
    if (text.empty()) break;
    if (text.size() > 1 && text[1] == text[0]) {
      literal += text[0];
      text.remove_prefix(2);
      continue;
    }
    if (text[0] == '{') break;
    return std::nullopt;
  }
  return literal;
}

}  // namespace

bool TextTemplate::has(TemplatePart::What what) const {
  return std::any_of(parts.begin(), parts.end(), [what](const TemplatePart& part) { return part.what == what; });
}

Result<TextTemplate> parse_template(std::string_view text) {
  TextTemplate out;
  while (!text.empty()) {
    std::optional<std::string> literal = take_literal(text);
    if (!literal) return fail("a '}' without its '{' (a brace itself is written twice)");
    if (!literal->empty()) out.parts.push_back({What::literal, *std::move(literal)});
    if (text.empty()) break;
    const size_t end = text.find('}');
    if (end == std::string_view::npos) return fail("a '{' is not closed (a brace itself is written twice)");
    Result<TemplatePart> part = parse_variable(text.substr(1, end - 1));
    if (!part) return part.error();
    out.parts.push_back(*std::move(part));
    text.remove_prefix(end + 1);
  }
  if (out.parts.size() > kTemplateParts) return fail(fmt::format("it has more than {} parts", kTemplateParts));
  return out;
}

std::string variable_hint(std::string_view name, std::vector<std::string_view> known) {
  if (!name.empty() && name.find_first_not_of("0123456789") == std::string_view::npos) {
    return "a group of `match` is {match.1}";
  }
  for (const PlainVariable& each : kPlainVariables) known.push_back(each.name);
  if (const std::string hint = did_you_mean(name, known); !hint.empty()) return hint;
  const size_t dot = name.find('.');
  if (dot == std::string_view::npos) return {};
  std::vector<std::string_view> prefixes;
  for (const NamedVariable& each : kNamedVariables) prefixes.push_back(each.prefix);
  return did_you_mean(name.substr(0, dot + 1), prefixes);
}

std::string variable_name(const TemplatePart& part) {
  for (const NamedVariable& each : kNamedVariables) {
    if (each.what != part.what) continue;
    return fmt::format("{}{}", each.prefix, part.what == What::group ? std::to_string(part.number) : part.text);
  }
  return part.text;
}

bool is_of_url(TemplatePart::What what) {
  constexpr What kOfUrl[] = {What::literal, What::host,   What::authority,      What::path,
                             What::query,   What::scheme, What::path_parameter, What::query_parameter};
  return std::find(std::begin(kOfUrl), std::end(kOfUrl), what) != std::end(kOfUrl);
}

std::string_view why_not_in_path(std::string_view text) {
  const auto is_hex = [text](size_t at) { return at < text.size() && hex_digit(text[at]) >= 0; };
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '?' || c == '#' || c == ' ') return "a path has no '?', no '#' and no space";
    if (c == '\\') return "a path has no '\\'; a group of `match` is {match.1}";
    if (c < ' ' || c == '\x7f') return "a path has no control characters and only ASCII: others are written as %XX";
    if (c == '%' && !(is_hex(i + 1) && is_hex(i + 2))) return "in a path '%' begins an escape: two hexadecimal digits";
  }
  return {};
}

}  // namespace tidegate
