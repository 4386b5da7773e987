// SPDX-License-Identifier: Apache-2.0
#include "l7/policy/transformer.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/assert.h"
#include "core/percent.h"
#include "l7/limits.h"
#include "l7/policy/names.h"

namespace tidegate::l7::policy {
namespace {

// Puts `middle` between the texts before and after a match.
std::string_view joined_text(std::string_view before, std::string_view middle, std::string_view behind, Arena& arena) {
  char* const begin = arena.allocate(before.size() + middle.size() + behind.size());
  char* end = std::copy(before.begin(), before.end(), begin);
  end = std::copy(middle.begin(), middle.end(), end);
  end = std::copy(behind.begin(), behind.end(), end);
  return {begin, static_cast<size_t>(end - begin)};
}

// The text, with the part that `match` matched replaced.
std::string_view with_match_replaced(std::string_view text, const Regex::Match& match, std::string_view value,
                                     Arena& arena) {
  const auto at = static_cast<size_t>(match.groups[0].data() - text.data());
  return joined_text(text.substr(0, at), value, text.substr(at + match.groups[0].size()), arena);
}

// "." or "..", also with escapes: a backend that resolves them would leave the path that the document names.
bool is_dot_segment(std::string_view segment) {
  segment = segment.substr(0, segment.find(';'));
  size_t dots = 0;
  while (!segment.empty()) {
    const bool plain = segment[0] == '.';
    const bool escaped = segment.size() >= 3 && segment[0] == '%' && segment[1] == '2' && (segment[2] | 0x20) == 'e';
    if (!plain && !escaped) return false;
    segment.remove_prefix(plain ? 1 : 3);
    ++dots;
  }
  return dots == 1 || dots == 2;
}

bool has_dot_segment(std::string_view path) {
  while (!path.empty()) {
    const size_t end = std::min(path.find('/'), path.size());
    if (is_dot_segment(path.substr(0, end))) return true;
    path.remove_prefix(std::min(end + 1, path.size()));
  }
  return false;
}

bool is_target_text(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c > ' ' && c != '\x7f' && c != '#'; });
}

// The rest of the path after whole segments. Nothing if the path does not begin with them.
std::optional<std::string_view> behind_prefix(std::string_view path, std::string_view prefix) {
  if (prefix.ends_with('/')) prefix.remove_suffix(1);
  if (!path.starts_with(prefix)) return std::nullopt;
  path.remove_prefix(prefix.size());
  if (!path.empty() && path[0] != '/') return std::nullopt;
  return path;
}

std::string_view trimmed_value(std::string_view value) {
  while (!value.empty() && (value.front() == ' ' || value.front() == '\t')) value.remove_prefix(1);
  while (!value.empty() && (value.back() == ' ' || value.back() == '\t')) value.remove_suffix(1);
  return value;
}

// A field that the document adds. It is always passed on, even if a client may not send it.
Field transform_field(const std::string& name, const std::string& lower_name, std::string_view value) {
  const FieldKind kind = lower_name == "cookie" ? FieldKind::cookie : FieldKind::other;
  return {lower_name, value, kind, false, name};
}

}  // namespace

const char* name(TransformFault fault) {
  constexpr const char* kNames[] = {"none",     "bad_value",       "bad_path",         "bad_query",
                                    "bad_host", "value_too_large", "target_too_large", "too_many_fields"};
  static_assert(std::size(kNames) == static_cast<size_t>(TransformFault::count_));
  return kNames[static_cast<size_t>(fault)];
}

Transformer::Transformer(const TransformPolicy& transform, const TransformContent& content)
    : query_(compile(transform.query, content.query)),
      request_(compile(transform.request_headers, content.request_headers)),
      answer_(compile(transform.response_headers, content.response_headers)) {
  if (content.path) path_ = PathEdit{content.path->value, transform.path->prefix, content.path->match};
  if (!transform.host.empty()) host_ = content.host;
}

std::vector<Transformer::Edit> Transformer::compile(const std::vector<TransformEdit>& edits,
                                                    const std::vector<TransformContent::Edit>& content) {
  TIDEGATE_ASSERT(edits.size() == content.size(), "the content is of another part");
  std::vector<Edit> out;
  out.reserve(edits.size());
  for (size_t i = 0; i < edits.size(); ++i) {
    const TransformEdit& edit = edits[i];
    out.push_back({edit.action(), edit.name(), lower_case(edit.name()), content[i].value, content[i].match, edit.to,
                   lower_case(edit.to)});
  }
  return out;
}

TransformFault Transformer::change_request(const TemplateValues& values, RequestHead& head, std::string_view& host,
                                           Arena& arena) const {
  TransformFault fault = change_path(values, head, arena);
  if (fault == TransformFault::none) fault = change_query(values, head, arena);
  if (fault != TransformFault::none) return fault;
  if (head.path.size() + head.query.size() > kTransformTargetBytes) return TransformFault::target_too_large;
  if (host_) {
    const std::optional<std::string_view> text =
        expand(*host_, values, nullptr, TemplateUse::field, kTransformValueBytes, arena);
    if (!text) return TransformFault::value_too_large;
    if (!is_target_text(*text) || host_of_authority(*text, arena).empty()) return TransformFault::bad_host;
    host = *text;
  }
  size_t room = kTransformFieldBytes;
  for (const Edit& edit : request_) {
    fault = change_field(edit, values, head.fields, true, room, arena);
    if (fault != TransformFault::none) return fault;
  }
  return TransformFault::none;
}

TransformFault Transformer::change_answer(const TemplateValues& values, FieldList& fields, Arena& arena) const {
  TransformFault last = TransformFault::none;
  size_t room = kTransformFieldBytes;
  for (const Edit& edit : answer_) {
    const TransformFault fault = change_field(edit, values, fields, false, room, arena);
    if (fault != TransformFault::none) last = fault;
  }
  return last;
}

TransformFault Transformer::change_path(const TemplateValues& values, RequestHead& head, Arena& arena) const {
  if (!path_) return TransformFault::none;
  Regex::Match match;
  const Regex::Match* matched = nullptr;
  if (path_->match) {
    if (!path_->match->search(head.path, match)) return TransformFault::none;
    matched = &match;
  }
  std::optional<std::string_view> rest = std::string_view();
  if (!path_->prefix.empty()) rest = behind_prefix(head.path, path_->prefix);
  if (!rest) return TransformFault::none;
  const std::optional<std::string_view> value =
      expand(path_->value, values, matched, TemplateUse::path, kTransformTargetBytes, arena);
  if (!value) return TransformFault::target_too_large;
  std::string_view path = *value;
  if (matched != nullptr) path = with_match_replaced(head.path, match, *value, arena);
  if (!path_->prefix.empty()) {
    // "/" and "/x" do not become "//x"; two empty texts become "/".
    if (path.ends_with('/') && rest->starts_with('/')) path.remove_suffix(1);
    path = joined_text(path, *rest, {}, arena);
    if (path.empty()) path = "/";
  }
  // A dot segment that only normalising reveals would also leave the path that the document names.
  if (!path.starts_with('/') || !is_target_text(path) || path.find('?') != std::string_view::npos ||
      has_dot_segment(path)) {
    return TransformFault::bad_path;
  }
  head.path = normalise_path(path, arena);
  return head.path.empty() ? TransformFault::bad_path : TransformFault::none;
}

TransformFault Transformer::change_query(const TemplateValues& values, RequestHead& head, Arena& arena) const {
  if (query_.empty()) return TransformFault::none;
  std::string_view query = head.query;
  for (const Edit& edit : query_) {
    const TransformFault fault = change_parameter(edit, values, query, arena);
    if (fault != TransformFault::none) return fault;
  }
  if (!is_target_text(query)) return TransformFault::bad_query;
  head.has_query = !query.empty() || (head.has_query && head.query.empty());
  head.query = query;
  return TransformFault::none;
}

// Writes the query again, parameter by parameter. The limit of the target is checked as it grows.
TransformFault Transformer::change_parameter(const Edit& edit, const TemplateValues& values, std::string_view& query,
                                             Arena& arena) {
  using Action = TransformEdit::Action;
  fmt::basic_memory_buffer<char, 1024> out;
  const auto append = [&out](std::string_view parameter, std::string_view more = {}) {
    if (out.size() > 0) out.push_back('&');
    out.append(parameter.data(), parameter.data() + parameter.size());
    out.append(more.data(), more.data() + more.size());
  };
  for (std::string_view rest = query; !rest.empty();) {
    const std::string_view each = rest.substr(0, rest.find('&'));
    rest.remove_prefix(std::min(each.size() + 1, rest.size()));
    const size_t equals = std::min(each.find('='), each.size());
    const std::string_view old = each.substr(std::min(equals + 1, each.size()));
    Regex::Match match;
    if (!is_parameter_named(each.substr(0, equals), edit.name)) {
      append(each);
    } else if (edit.action == Action::rename) {
      append(percent_encode(edit.to), each.substr(equals));
    } else if (edit.action == Action::add || (edit.action == Action::replace && !edit.match->search(old, match))) {
      append(each);
    } else if (edit.action == Action::replace) {
      const auto text = expand(edit.value, values, &match, TemplateUse::query, kTransformValueBytes, arena);
      if (!text) return TransformFault::value_too_large;
      append(each.substr(0, equals));
      out.push_back('=');
      const std::string_view replaced = with_match_replaced(old, match, *text, arena);
      out.append(replaced.data(), replaced.data() + replaced.size());
    }
    if (out.size() > kTransformTargetBytes) return TransformFault::target_too_large;
  }
  if (edit.action == Action::set || edit.action == Action::add) {
    const auto value = expand(edit.value, values, nullptr, TemplateUse::query, kTransformValueBytes, arena);
    if (!value) return TransformFault::value_too_large;
    if (!value->empty() || edit.action == Action::add) append(percent_encode(edit.name) + "=", *value);
    if (out.size() > kTransformTargetBytes) return TransformFault::target_too_large;
  }
  query = arena.copy({out.data(), out.size()});
  return TransformFault::none;
}

// `room`: how many bytes all values of this message may still use together.
TransformFault Transformer::change_field(const Edit& edit, const TemplateValues& values, FieldList& fields,
                                         bool of_request, size_t& room, Arena& arena) {
  using Action = TransformEdit::Action;
  const auto text_of = [&](const Regex::Match* match) {
    const auto text =
        expand(edit.value, values, match, TemplateUse::field, std::min(kTransformValueBytes, room), arena);
    if (text) room -= text->size();
    return text;
  };
  if (edit.action == Action::set || edit.action == Action::add) {
    const std::optional<std::string_view> text = text_of(nullptr);
    if (!text) return TransformFault::value_too_large;
    if (!http1::is_field_value(*text)) return TransformFault::bad_value;
    const std::string_view value = trimmed_value(*text);
    if (edit.action == Action::set) {
      // A backend must not confuse a client's own field, in any spelling, with the added one.
      if (of_request) remove_imitations(fields, edit.lower_name);
      fields.remove_named(edit.lower_name);
    }
    if (value.empty()) return TransformFault::none;
    return fields.add(transform_field(edit.name, edit.lower_name, value)) ? TransformFault::none
                                                                          : TransformFault::too_many_fields;
  }
  if (edit.action == Action::remove) {
    if (of_request) remove_imitations(fields, edit.lower_name);
    fields.remove_named(edit.lower_name);
    return TransformFault::none;
  }
  if (fields.find(edit.lower_name) == nullptr) return TransformFault::none;
  FieldList out;
  for (const Field& field : fields) {
    Field changed = field;
    if (field.name == edit.lower_name && edit.action == Action::rename) {
      changed = transform_field(edit.to, edit.lower_to, field.value);
    } else if (field.name == edit.lower_name) {
      Regex::Match match;
      if (edit.match->search(field.value, match)) {
        const std::optional<std::string_view> text = text_of(&match);
        if (!text) return TransformFault::value_too_large;
        changed.value = trimmed_value(with_match_replaced(field.value, match, *text, arena));
        if (!http1::is_field_value(changed.value)) return TransformFault::bad_value;
        if (changed.value.size() > kTransformValueBytes) return TransformFault::value_too_large;
      }
    } else if (edit.action == Action::rename &&
               (of_request ? reads_as(field.name, edit.lower_to) : field.name == edit.lower_to)) {
      continue;  // the renamed one takes its place
    }
    out.add(changed);
  }
  fields = out;
  return TransformFault::none;
}

}  // namespace tidegate::l7::policy
