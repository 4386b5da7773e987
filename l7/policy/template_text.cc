// SPDX-License-Identifier: Apache-2.0
#include "l7/policy/template_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "conf/limits.h"
#include "core/percent.h"
#include "l7/exchange/exchange.h"
#include "l7/exchange/forwarding.h"
#include "l7/exchange/sticky.h"
#include "l7/policy/claims.h"

namespace tidegate::l7::policy {
namespace {

using What = TemplatePart::What;

// How a value is escaped in a text.
enum class Writing : uint8_t { plain, keep_escapes, encode, json };

bool is_unreserved_byte(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '.' ||
         c == '_' || c == '~';
}

// A part of the URL is inserted into another part. Its escapes are valid there too, but not bytes that end a segment or
// a parameter.
bool ends_no_part(char c) {
  return is_unreserved_byte(c) || c == '%' || c == ':' || c == '@' || c == '!' || c == '$' || c == '\'' || c == '(' ||
         c == ')' || c == '*' || c == ',';
}

bool stays_as_it_is(char c, Writing writing) {
  return writing == Writing::plain || (writing == Writing::keep_escapes ? ends_no_part(c) : is_unreserved_byte(c));
}

Writing writing_of(What what, TemplateUse use) {
  if (use == TemplateUse::field || what == What::literal || what == What::json) return Writing::plain;
  if (use == TemplateUse::json) return Writing::json;
  const bool of_path = what == What::path || what == What::path_parameter;
  const bool of_query = what == What::query || what == What::query_parameter;
  // a group's value comes from the text that it is inserted into, the path or a parameter
  const bool of_match = what == What::group;
  if (of_match || (use == TemplateUse::path ? of_path : of_query)) return Writing::plain;
  return of_path || of_query ? Writing::keep_escapes : Writing::encode;
}

// How a byte is written in a string of JSON (RFC 8259 §7).
std::string_view in_json(char c) {
  static const auto kTexts = [] {
    std::array<std::string, 256> texts;
    for (int i = 0; i < 256; ++i) texts[static_cast<size_t>(i)] = std::string(1, static_cast<char>(i));
    for (size_t i = 0; i < 0x20; ++i) texts[i] = fmt::format("\\u{:04x}", i);
    texts[0x7f] = "\\u007f";
    texts['"'] = "\\\"";
    texts['\\'] = "\\\\";
    return texts;
  }();
  return kTexts[static_cast<unsigned char>(c)];
}

size_t written_bytes(std::string_view value, Writing writing) {
  size_t bytes = value.size();
  if (writing == Writing::plain) return bytes;
  if (writing == Writing::json) {
    for (const char c : value) bytes += in_json(c).size() - 1;
    return bytes;
  }
  for (const char c : value) bytes += stays_as_it_is(c, writing) ? 0 : 2;
  return bytes;
}

char* write_value(std::string_view value, Writing writing, char* out) {
  if (writing == Writing::plain) return std::copy(value.begin(), value.end(), out);
  if (writing == Writing::json) {
    for (const char c : value) {
      const std::string_view text = in_json(c);
      out = std::copy(text.begin(), text.end(), out);
    }
    return out;
  }
  constexpr char kDigits[] = "0123456789ABCDEF";
  for (const char c : value) {
    if (stays_as_it_is(c, writing)) {
      *out++ = c;
      continue;
    }
    const auto byte = static_cast<unsigned char>(c);
    *out++ = '%';
    *out++ = kDigits[byte >> 4];
    *out++ = kDigits[byte & 15];
  }
  return out;
}

std::string_view number_text(uint16_t number, Arena& arena) {
  if (number == 0) return {};
  const fmt::format_int digits(number);
  return arena.copy({digits.data(), digits.size()});
}

std::string_view cookie_value(const RequestHead& request, std::string_view name) {
  for (const Field& field : request.fields) {
    if (field.kind != FieldKind::cookie) continue;
    if (const std::string_view value = cookie_of(field.value, name); !value.empty()) return value;
  }
  return {};
}

// A text is decoded. A number, `true` and `false` stay as they are written. Everything else is empty.
std::string_view claim_text(std::string_view claims, std::string_view name, Arena& arena) {
  if (claims.empty()) return {};
  const std::optional<JsonView> claim = find_claim(claims, name, arena);
  if (!claim) return {};
  switch (claim->kind) {
    case JsonView::Kind::string:
      return json_text(*claim, arena).value_or(std::string_view());
    case JsonView::Kind::number:
    case JsonView::Kind::literal:
      return claim->text == "null" ? std::string_view() : claim->text;
    case JsonView::Kind::object:
    case JsonView::Kind::array:
      break;
  }
  return {};
}

std::string_view variable_value(const TemplatePart& part, const TemplateValues& values, const Regex::Match* match,
                                Arena& arena) {
  const RequestHead& request = values.request;
  switch (part.what) {
    case What::literal:
      return part.text;
    case What::client:
      return values.client;
    case What::port:
      return number_text(values.port, arena);
    case What::host:
      return request.host;
    case What::authority:
      return request.authority;
    case What::path:
      return request.path;
    case What::query:
      return request.query;
    case What::method:
      return request.method;
    case What::scheme:
      return values.scheme;
    case What::route:
      return values.route;
    case What::request_id:
      return values.request_id;
    case What::identity:
      return values.identity;
    case What::tls_version:
      return values.tls_version;
    case What::status:
      return number_text(values.status, arena);
    case What::path_parameter:
      return values.parameters == nullptr ? std::string_view() : values.parameters->find(part.text);
    case What::query_parameter:
      return query_parameter(request.query, part.text);
    case What::header: {
      const Field* const field = request.fields.find(part.text);
      return field == nullptr ? std::string_view() : field->value;
    }
    case What::cookie:
      return cookie_value(request, part.text);
    case What::claim:
      return claim_text(values.claims, part.text, arena);
    case What::json: {
      const std::optional<JsonView> found = find_claim(values.json, part.text, arena);
      return found ? found->text : std::string_view("null");
    }
    case What::group:
      return match == nullptr || part.number >= match->count ? std::string_view() : match->groups[part.number];
  }
  return {};
}

}  // namespace

TemplateValues values_of(const Exchange& exchange) {
  const ClientFacts& facts = exchange.facts;
  return {.request = exchange.request,
          .parameters = &exchange.parameters,
          .client = exchange.client_address,
          .scheme = client_scheme(exchange.request, facts),
          .route = exchange.route == nullptr ? std::string_view() : std::string_view(exchange.route->name),
          .request_id = exchange.request_id,
          .identity = exchange.policies.identity.name,
          .tls_version = facts.tls_version,
          .claims = exchange.policies.identity.claims,
          .port = facts.port,
          .status = exchange.response.status};
}

std::optional<std::string_view> expand(const TextTemplate& text, const TemplateValues& values,
                                       const Regex::Match* match, TemplateUse use, size_t most, Arena& arena) {
  std::array<std::string_view, kTemplateParts> parts;
  const size_t count = std::min(text.parts.size(), parts.size());
  size_t bytes = 0;
  for (size_t i = 0; i < count; ++i) {
    parts[i] = variable_value(text.parts[i], values, match, arena);
    bytes += written_bytes(parts[i], writing_of(text.parts[i].what, use));
    if (bytes > most) return std::nullopt;
  }
  char* const begin = arena.allocate(bytes);
  char* end = begin;
  for (size_t i = 0; i < count; ++i) end = write_value(parts[i], writing_of(text.parts[i].what, use), end);
  return std::string_view(begin, bytes);
}

bool is_parameter_named(std::string_view written, std::string_view name) {
  if (written.find_first_of("%+") == std::string_view::npos) return written == name;
  size_t at = 0;
  for (size_t i = 0; i < written.size(); ++i, ++at) {
    char c = written[i];
    if (c == '+') c = ' ';
    if (c == '%' && i + 2 < written.size() && hex_digit(written[i + 1]) >= 0 && hex_digit(written[i + 2]) >= 0) {
      c = static_cast<char>(hex_digit(written[i + 1]) * 16 + hex_digit(written[i + 2]));
      i += 2;
    }
    if (at >= name.size() || name[at] != c) return false;
  }
  return at == name.size();
}

std::string_view query_parameter(std::string_view query, std::string_view name) {
  while (!query.empty()) {
    const std::string_view each = query.substr(0, query.find('&'));
    const size_t equals = each.find('=');
    if (is_parameter_named(each.substr(0, equals), name)) {
      return equals == std::string_view::npos ? std::string_view() : each.substr(equals + 1);
    }
    query.remove_prefix(std::min(each.size() + 1, query.size()));
  }
  return {};
}

}  // namespace tidegate::l7::policy
