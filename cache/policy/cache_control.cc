// SPDX-License-Identifier: Apache-2.0
#include "cache/policy/cache_control.h"

#include <algorithm>

#include "cache/limits.h"
#include "cache/policy/fields.h"

namespace tidegate::cache {
namespace {

struct Flag {
  std::string_view name;
  bool CacheControl::*member;
};
constexpr Flag kFlags[] = {
    {"no-store", &CacheControl::no_store},
    {"public", &CacheControl::is_public},
    {"must-revalidate", &CacheControl::must_revalidate},
    {"proxy-revalidate", &CacheControl::proxy_revalidate},
    {"must-understand", &CacheControl::must_understand},
    {"only-if-cached", &CacheControl::only_if_cached},
};

struct Delta {
  std::string_view name;
  std::optional<uint64_t> CacheControl::*member;
};
constexpr Delta kDeltas[] = {
    {"max-age", &CacheControl::max_age},
    {"s-maxage", &CacheControl::s_maxage},
    {"min-fresh", &CacheControl::min_fresh},
    {"max-stale", &CacheControl::max_stale},
    {"stale-while-revalidate", &CacheControl::stale_while_revalidate},
    {"stale-if-error", &CacheControl::stale_if_error},
};

std::string_view unquoted(std::string_view value) {
  if (value.size() >= 2 && value.front() == '"' && value.back() == '"') return value.substr(1, value.size() - 2);
  return value;
}

void add_withheld(CacheControl& control, std::string_view list, bool CacheControl::*unqualified) {
  const bool too_many = std::count(list.begin(), list.end(), ',') >= static_cast<ptrdiff_t>(kWithheldNames);
  if (too_many || control.withheld_count == control.withheld_lists.size()) {
    control.*unqualified = true;
    return;
  }
  control.withheld_lists[control.withheld_count++] = list;
}

void apply(CacheControl& control, std::string_view name, std::optional<std::string_view> value) {
  for (const Flag& flag : kFlags) {
    if (same_name(name, flag.name)) {
      control.*flag.member = true;
      return;
    }
  }
  const bool no_cache = same_name(name, "no-cache");
  if (no_cache || same_name(name, "private")) {
    const auto unqualified = no_cache ? &CacheControl::no_cache : &CacheControl::is_private;
    if (value && !unquoted(*value).empty()) {
      add_withheld(control, unquoted(*value), unqualified);
    } else {
      control.*unqualified = true;
    }
    return;
  }
  if (same_name(name, "max-stale") && !value) {
    control.any_max_stale = true;
    return;
  }
  for (const Delta& delta : kDeltas) {
    if (!same_name(name, delta.name)) continue;
    auto& slot = control.*delta.member;
    if (!slot) slot = value ? parse_delta_seconds(unquoted(*value)).value_or(0) : 0;
    return;
  }
}

// As much of RFC 8941 §3.2 as cache directives need: keys, and bare items that are integers, booleans, tokens or
// strings. Parameters are skipped. Inner lists and other types make the whole field invalid.
class DictionaryReader {
 public:
  explicit DictionaryReader(std::string_view text) : text_(trim(text)) {}

  bool read(CacheControl& control) {
    while (!text_.empty()) {
      if (!read_member(control)) return false;
      skip_space();
      if (text_.empty()) return true;
      if (!take(',')) return false;
      skip_space();
      if (text_.empty()) return false;  // a trailing comma
    }
    return true;
  }

 private:
  enum class Type : uint8_t { boolean, integer, other };

  bool take(char c) {
    if (text_.empty() || text_.front() != c) return false;
    text_.remove_prefix(1);
    return true;
  }
  void skip_space() {
    while (!text_.empty() && (text_.front() == ' ' || text_.front() == '\t')) text_.remove_prefix(1);
  }
  template <class Accept>
  std::string_view take_while(Accept accept) {
    size_t n = 0;
    while (n < text_.size() && accept(text_[n])) ++n;
    const std::string_view taken = text_.substr(0, n);
    text_.remove_prefix(n);
    return taken;
  }
  static bool is_digit(char c) { return c >= '0' && c <= '9'; }
  static bool is_lower(char c) { return c >= 'a' && c <= 'z'; }
  static bool is_key(char c) { return is_lower(c) || is_digit(c) || c == '_' || c == '-' || c == '.' || c == '*'; }
  static bool is_token_char(char c) { return http1::is_token({&c, 1}) || c == ':' || c == '/'; }

  std::string_view read_key() {
    if (text_.empty() || !(is_lower(text_.front()) || text_.front() == '*')) return {};
    return take_while(is_key);
  }

  bool read_string() {
    while (!text_.empty()) {
      if (take('"')) return true;
      if (take('\\') && text_.empty()) return false;
      const auto c = static_cast<unsigned char>(text_.front());
      if (c < 0x20 || c > 0x7e) return false;
      text_.remove_prefix(1);
    }
    return false;
  }

  // `value` receives the text of a number.
  bool read_item(Type& type, bool& truth, std::string_view& value) {
    type = Type::other;
    if (text_.empty()) return false;
    if (take('?')) {
      type = Type::boolean;
      truth = !text_.empty() && text_.front() == '1';
      return take('1') || take('0');
    }
    if (take('"')) return read_string();
    const bool negative = take('-');
    value = take_while(is_digit);
    if (!value.empty()) {
      if (value.size() > 15) return false;
      if (!negative) type = Type::integer;
      if (!take('.')) return true;
      type = Type::other;
      return !take_while(is_digit).empty();
    }
    const char first = text_.empty() ? '\0' : text_.front();
    const bool alpha = is_lower(to_lower(first));
    return !negative && (alpha || first == '*') && !take_while(is_token_char).empty();
  }

  bool read_parameters() {
    while (take(';')) {
      skip_space();
      if (read_key().empty()) return false;
      Type type{};
      bool truth = true;
      std::string_view value;
      if (take('=') && !read_item(type, truth, value)) return false;
    }
    return true;
  }

  bool read_member(CacheControl& control) {
    const std::string_view key = read_key();
    if (key.empty()) return false;
    Type type = Type::boolean;
    bool truth = true;
    std::string_view value;
    if (take('=') && !read_item(type, truth, value)) return false;
    if (!read_parameters()) return false;
    // A value of the wrong type counts as if the directive were absent (RFC 9213 §2.2).
    if (type == Type::boolean && truth && !is_delta(key)) apply(control, key, std::nullopt);
    if (type == Type::integer) assign_delta(control, key, value);
    return true;
  }

  static bool is_delta(std::string_view key) {
    for (const Delta& delta : kDeltas) {
      if (delta.name == key) return true;
    }
    return false;
  }
  // The last of repeated members counts (RFC 8941 §3.2).
  static void assign_delta(CacheControl& control, std::string_view key, std::string_view value) {
    for (const Delta& delta : kDeltas) {
      if (delta.name == key) control.*delta.member = parse_delta_seconds(value);
    }
  }

  std::string_view text_;
};

}  // namespace

bool CacheControl::withholds(std::string_view field_name) const {
  bool found = false;
  for (size_t i = 0; i < withheld_count; ++i) {
    http1::for_each_element(withheld_lists[i], [&](std::string_view name) { found |= same_name(name, field_name); });
  }
  return found;
}

CacheControl parse_cache_control(Fields fields) {
  CacheControl control;
  for_each_list_element(fields, "cache-control", [&](std::string_view directive) {
    control.present = true;
    const size_t equals = directive.find('=');
    if (equals == std::string_view::npos) {
      apply(control, directive, std::nullopt);
    } else {
      apply(control, trim(directive.substr(0, equals)), trim(directive.substr(equals + 1)));
    }
  });
  return control;
}

std::optional<CacheControl> parse_targeted_cache_control(Fields fields) {
  CacheControl control;
  for (const http1::Field& field : fields) {
    if (!same_name(field.name, "cdn-cache-control") || trim(field.value).empty()) continue;
    control.present = true;
    if (!DictionaryReader(field.value).read(control)) return std::nullopt;
  }
  if (!control.present) return std::nullopt;
  return control;
}

CacheControl response_control(Fields fields) {
  const auto targeted = parse_targeted_cache_control(fields);
  return targeted ? *targeted : parse_cache_control(fields);
}

}  // namespace tidegate::cache
