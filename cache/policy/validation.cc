// SPDX-License-Identifier: Apache-2.0
#include "cache/policy/validation.h"

#include <algorithm>

#include "cache/policy/fields.h"
#include "cache/policy/http_date.h"

namespace tidegate::cache {
namespace {

std::string_view opaque(std::string_view etag) {
  if (etag.starts_with("W/")) etag.remove_prefix(2);
  return etag;
}
bool is_weak(std::string_view etag) { return etag.starts_with("W/"); }

// RFC 9110 §13.1.2. True when the condition fails: the client has this response.
bool none_match_fails(Fields fields, const StoredHead& head) {
  bool matched = false;
  for_each_list_element(fields, "if-none-match", [&](std::string_view etag) {
    matched |= etag == "*" || (!head.etag.empty() && etags_match_weakly(etag, head.etag));
  });
  return matched;
}

// RFC 9110 §13.1.3, RFC 9111 §4.3.2: Last-Modified, else Date.
bool not_modified_since(std::string_view value, const StoredHead& head, uint64_t now_ms) {
  const auto since_ms = parse_http_date(value, now_ms);
  if (!since_ms) return false;
  const uint64_t modified_ms = head.last_modified_ms != 0 ? head.last_modified_ms : head.date_ms;
  return modified_ms / 1000 <= *since_ms / 1000;
}

// RFC 9110 §13.1.1: strong comparison; `*` matches any stored response.
bool match_holds(Fields fields, const StoredHead& head) {
  bool matched = false;
  for_each_list_element(fields, "if-match", [&](std::string_view etag) {
    matched |= etag == "*" || etags_match_strongly(etag, head.etag);
  });
  return matched;
}

// RFC 9110 §13.1.5: a strong etag, or a date that is a strong validator (§8.8.2.2: at least a minute older than Date).
bool if_range_holds(std::string_view value, const StoredHead& head, uint64_t now_ms) {
  if (value.starts_with('"') || value.starts_with("W/")) return etags_match_strongly(value, head.etag);
  const auto date_ms = parse_http_date(value, now_ms);
  if (!date_ms || head.last_modified_ms == 0 || *date_ms != head.last_modified_ms) return false;
  return head.date_ms >= head.last_modified_ms + 60'000;
}

bool is_made_anew(std::string_view name) {
  static constexpr std::string_view kNames[] = {"connection",
                                                "keep-alive",
                                                "proxy-connection",
                                                "te",
                                                "trailer",
                                                "upgrade",
                                                "transfer-encoding",
                                                "content-length",
                                                "age",
                                                "content-range",
                                                "proxy-authenticate",
                                                "proxy-authentication-info",
                                                "proxy-authorization"};
  return std::any_of(std::begin(kNames), std::end(kNames), [&](std::string_view n) { return same_name(n, name); });
}

bool is_nominated_by_connection(Fields fields, std::string_view name) {
  bool nominated = false;
  for_each_list_element(fields, "connection", [&](std::string_view option) { nominated |= same_name(option, name); });
  return nominated;
}

// `name`: in the original spelling.
void append_field(StoredHead& head, std::string_view name, std::string_view value) {
  for (const char c : name) head.field_text += to_lower(c);
  head.field_text += ": ";
  head.field_text += value;
  head.field_text += "\r\n";
  head.spelt_names += name;
}

// If all names are in lower case, no second copy is needed.
void drop_plain_names(StoredHead& head) {
  const auto is_upper = [](char c) { return c >= 'A' && c <= 'Z'; };
  if (std::none_of(head.spelt_names.begin(), head.spelt_names.end(), is_upper)) head.spelt_names.clear();
}

std::string_view written(std::string_view spelt, const http1::Field& field) {
  return spelt.empty() ? field.name : spelt;
}

// Returns false if the spelt names do not belong to the fields.
bool spells_its_names(const StoredHead& head) {
  if (head.spelt_names.empty()) return true;
  size_t bytes = 0;
  SpeltNames spelt(head);
  for (const http1::Field& field : head.fields) {
    if (!same_name(spelt.next(field), field.name)) return false;
    bytes += field.name.size();
  }
  return bytes == head.spelt_names.size();
}

// The backend's own reason phrase, if it has one.
std::string kept_reason(const ResponseView& response) {
  return std::string(response.reason == http1::reason_phrase(response.status) ? std::string_view() : response.reason);
}

// Content-* fields describe a body, and a 304 has none. A wrong one would garble the stored body (RFC 9111 §3.2).
bool is_kept_from_stored(std::string_view name) {
  return same_name(name, "content-encoding") || same_name(name, "content-type");
}

// Digits only. A number beyond any body becomes the largest one.
std::optional<uint64_t> parse_position(std::string_view text) {
  constexpr uint64_t kBeyondAllBodies = UINT64_MAX / 16;
  if (text.empty()) return std::nullopt;
  uint64_t value = 0;
  for (const char c : text) {
    if (c < '0' || c > '9') return std::nullopt;
    value = std::min(value * 10 + static_cast<uint64_t>(c - '0'), kBeyondAllBodies);
  }
  return value;
}

// The only element of a list. Empty elements do not count (RFC 9110 §5.6.1).
std::optional<std::string_view> only_element(std::string_view list) {
  std::optional<std::string_view> only;
  size_t count = 0;
  http1::for_each_element(list, [&](std::string_view element) {
    only = element;
    ++count;
  });
  return count == 1 ? only : std::nullopt;
}

}  // namespace

bool etags_match_weakly(std::string_view a, std::string_view b) { return opaque(a) == opaque(b); }
bool etags_match_strongly(std::string_view a, std::string_view b) {
  return !a.empty() && !is_weak(a) && !is_weak(b) && a == b;
}

std::optional<RangeRequest> parse_range(std::string_view value, uint64_t body_bytes) {
  const size_t equals = value.find('=');
  if (equals == std::string_view::npos || !same_name(trim(value.substr(0, equals)), "bytes")) return std::nullopt;
  const auto only = only_element(value.substr(equals + 1));
  if (!only) return std::nullopt;
  const std::string_view spec = *only;
  const size_t dash = spec.find('-');
  if (dash == std::string_view::npos) return std::nullopt;
  const std::string_view first_text = trim(spec.substr(0, dash)), last_text = trim(spec.substr(dash + 1));
  RangeRequest out;
  if (first_text.empty()) {  // the last N bytes
    const auto suffix = parse_position(last_text);
    if (!suffix) return std::nullopt;
    const uint64_t length = std::min(*suffix, body_bytes);
    out.satisfiable = length > 0;
    out.range = {body_bytes - length, length};
    return out;
  }
  const auto first = parse_position(first_text);
  if (!first) return std::nullopt;
  uint64_t last = UINT64_MAX;
  if (!last_text.empty()) {
    const auto given = parse_position(last_text);
    if (!given || *given < *first) return std::nullopt;
    last = *given;
  }
  if (*first >= body_bytes) return out;
  out.satisfiable = true;
  out.range = {*first, std::min(last, body_bytes - 1) - *first + 1};
  return out;
}

bool precondition_holds(const RequestView& request, const StoredHead& head, uint64_t now_ms) {
  if (head.status != 200) return true;
  if (find_field(request.fields, "if-match") != nullptr) return match_holds(request.fields, head);
  const http1::Field* since = find_field(request.fields, "if-unmodified-since");
  if (since == nullptr || head.last_modified_ms == 0) return true;  // §13.1.4: without a date there is no condition
  const auto since_ms = parse_http_date(since->value, now_ms);
  return !since_ms || head.last_modified_ms / 1000 <= *since_ms / 1000;
}

Selection select(const RequestView& request, const StoredHead& head, uint64_t now_ms) {
  Selection selection{head.status, {0, head.body_bytes}};
  if (head.status != 200) return selection;
  if (!precondition_holds(request, head, now_ms)) {
    selection.status = 412;
    return selection;
  }
  if (find_field(request.fields, "if-none-match") != nullptr) {
    if (none_match_fails(request.fields, head)) selection.status = 304;
  } else if (const http1::Field* since = find_field(request.fields, "if-modified-since")) {
    if (not_modified_since(since->value, head, now_ms)) selection.status = 304;
  }
  const http1::Field* range = find_field(request.fields, "range");
  if (selection.status == 304 || range == nullptr || request.method != "GET" || head.body_bytes == UINT64_MAX)
    return selection;
  const http1::Field* if_range = find_field(request.fields, "if-range");
  if (if_range != nullptr && !if_range_holds(if_range->value, head, now_ms)) return selection;
  if (const auto wanted = parse_range(range->value, head.body_bytes)) {
    selection.status = wanted->satisfiable ? 206 : 416;
    selection.range = wanted->range;
  }
  return selection;
}

ConditionalFields conditional_fields(const StoredHead& head) {
  ConditionalFields out;
  if (!head.etag.empty()) out.fields[out.count++] = {"If-None-Match", head.etag};
  if (!head.last_modified.empty()) out.fields[out.count++] = {"If-Modified-Since", head.last_modified};
  return out;
}

bool is_conditional_or_range(std::string_view name) {
  return same_name(name, "range") || same_name(name, "if-range") || same_name(name, "if-none-match") ||
         same_name(name, "if-modified-since") || same_name(name, "if-match") || same_name(name, "if-unmodified-since");
}

bool index_head(StoredHead& head, uint64_t received_ms) {
  head.fields.clear();
  head.etag = head.last_modified = {};
  head.date_ms = received_ms;
  head.last_modified_ms = 0;
  std::string_view rest = head.field_text;
  head.fields.reserve(static_cast<size_t>(std::count(rest.begin(), rest.end(), '\n')));
  while (!rest.empty()) {
    const size_t end = rest.find("\r\n");
    const size_t colon = rest.find(": ");
    if (end == std::string_view::npos || colon == std::string_view::npos || colon == 0 || colon > end) return false;
    const http1::Field field{rest.substr(0, colon), rest.substr(colon + 2, std::max(end, colon + 2) - colon - 2)};
    rest.remove_prefix(end + 2);
    head.fields.push_back(field);
    if (field.name == "etag" && head.etag.empty()) head.etag = field.value;
    if (field.name == "last-modified" && head.last_modified.empty()) {
      head.last_modified = field.value;
      head.last_modified_ms = parse_http_date(field.value, received_ms).value_or(0);
    }
    if (field.name == "date") head.date_ms = parse_http_date(field.value, received_ms).value_or(received_ms);
  }
  if (!head.fields.empty() && !spells_its_names(head)) head.spelt_names.clear();
  return true;
}

std::shared_ptr<StoredHead> make_head(const ResponseView& response, const CacheControl& control) {
  auto head = std::make_shared<StoredHead>();
  head->status = response.status;
  head->body_bytes = response.content_length.value_or(UINT64_MAX);
  for (const http1::Field& field : response.fields) {
    const bool left_out = is_made_anew(field.name) || is_nominated_by_connection(response.fields, field.name) ||
                          control.withholds(field.name);
    if (!left_out) append_field(*head, field.name, field.value);
  }
  head->reason = kept_reason(response);
  drop_plain_names(*head);
  index_head(*head, response.response_ms);
  return head;
}

std::shared_ptr<StoredHead> freshen_head(const StoredHead& stored, const ResponseView& not_modified) {
  auto head = std::make_shared<StoredHead>(stored);
  head->field_text.clear();
  head->spelt_names.clear();
  SpeltNames spelt(stored);
  const auto replaces = [&](std::string_view name) {
    return !is_made_anew(name) && !is_kept_from_stored(name) && !is_nominated_by_connection(not_modified.fields, name);
  };
  for (const http1::Field& field : stored.fields) {
    const std::string_view name = written(spelt.next(field), field);
    const bool replaced = find_field(not_modified.fields, field.name) != nullptr && replaces(field.name);
    if (!replaced) append_field(*head, name, field.value);
  }
  for (const http1::Field& field : not_modified.fields) {
    if (replaces(field.name)) append_field(*head, field.name, field.value);
  }
  drop_plain_names(*head);
  index_head(*head, not_modified.response_ms);
  return head;
}

std::shared_ptr<StoredHead> storable_head(std::shared_ptr<StoredHead> whole, const CacheControl& control,
                                          uint64_t received_ms) {
  const auto is_withheld = [&](const http1::Field& field) { return control.withholds(field.name); };
  if (std::none_of(whole->fields.begin(), whole->fields.end(), is_withheld)) return whole;
  auto head = std::make_shared<StoredHead>(*whole);
  head->field_text.clear();
  head->spelt_names.clear();
  SpeltNames spelt(*whole);
  for (const http1::Field& field : whole->fields) {
    const std::string_view name = written(spelt.next(field), field);
    if (!is_withheld(field)) append_field(*head, name, field.value);
  }
  drop_plain_names(*head);
  index_head(*head, received_ms);
  return head;
}

bool confirms(const StoredHead& stored, const ResponseView& not_modified) {
  if (const http1::Field* etag = find_field(not_modified.fields, "etag")) {
    return is_weak(etag->value) ? etags_match_weakly(etag->value, stored.etag) : etag->value == stored.etag;
  }
  const http1::Field* modified = find_field(not_modified.fields, "last-modified");
  return modified == nullptr || stored.last_modified.empty() || modified->value == stored.last_modified;
}

}  // namespace tidegate::cache
