// SPDX-License-Identifier: Apache-2.0
#include "cache/policy/key.h"

#include <algorithm>
#include <array>
#include <vector>

#include "cache/limits.h"
#include "cache/policy/fields.h"
#include "core/assert.h"

namespace tidegate::cache {
namespace {

void append_lower(std::string& out, std::string_view text) {
  const size_t begin = out.size();
  out += text;
  for (size_t i = begin; i < out.size(); ++i) out[i] = to_lower(out[i]);
}

// Drops one default port. The host must have no other colon, except within an IPv6 literal.
std::string_view without_default_port(std::string_view host, std::string_view scheme) {
  const std::string_view port = same_name(scheme, "https") ? ":443" : ":80";
  if (!host.ends_with(port)) return host;
  const std::string_view bare = host.substr(0, host.size() - port.size());
  const bool whole = !bare.empty() && (bare.ends_with(']') || bare.find(':') == std::string_view::npos);
  return whole ? bare : host;
}

template <class Fn>
void for_each_parameter(std::string_view query, Fn&& fn) {
  while (!query.empty()) {
    const size_t end = std::min(query.find('&'), query.size());
    const std::string_view parameter = query.substr(0, end);
    if (!parameter.empty()) fn(parameter.substr(0, parameter.find('=')), parameter);
    query.remove_prefix(std::min(end + 1, query.size()));
  }
}

void append_query(std::string& out, std::string_view query, const RouteCache& policy) {
  if (policy.ignore_query || query.empty()) return;
  if (policy.key_query.empty()) {
    out += '?';
    out += query;
    return;
  }
  char separator = '?';
  for (const std::string& wanted : policy.key_query) {
    for_each_parameter(query, [&](std::string_view name, std::string_view parameter) {
      if (name != wanted) return;
      out += separator;
      out += parameter;
      separator = '&';
    });
  }
}

// The codings with a quality above zero (RFC 9110 §12.5.3): x-gzip becomes gzip, identity is left out; sorted, once
// each.
void append_codings(std::string& out, Fields request_fields) {
  std::array<std::string, kKeyCodings> codings;
  size_t count = 0;
  for_each_list_element(request_fields, "accept-encoding", [&](std::string_view element) {
    const size_t semicolon = element.find(';');
    std::string coding;
    append_lower(coding, trim(element.substr(0, semicolon)));
    if (coding == "x-gzip") coding = "gzip";
    if (coding == "identity") return;
    if (semicolon != std::string_view::npos) {
      const std::string_view weight = trim(element.substr(semicolon + 1));
      const std::string_view quality = weight.size() > 2 && to_lower(weight[0]) == 'q' ? trim(weight.substr(2)) : "";
      if (!quality.empty() && quality.find_first_not_of("0.") == std::string_view::npos) return;  // q=0: refused
    }
    if (count < kKeyCodings) codings[count++] = std::move(coding);
  });
  const auto end = codings.begin() + static_cast<std::ptrdiff_t>(count);
  std::sort(codings.begin(), end);
  const auto unique_end = std::unique(codings.begin(), end);
  for (auto it = codings.begin(); it != unique_end; ++it) {
    if (it != codings.begin()) out += ',';
    out += *it;
  }
}

void append_values(std::string& out, std::string_view name, Fields request_fields) {
  bool first = true;
  for_each_list_element(request_fields, name, [&](std::string_view element) {
    if (!first) out += ',';
    out += element;
    first = false;
  });
}

}  // namespace

KeyHash hash_key(const HashKeys& keys, std::string_view text) {
  return {siphash13(keys.high, text), siphash13(keys.low, text)};
}

void make_key(const RequestView& request, const RouteCache& policy, std::string& out) {
  TIDEGATE_ASSERT(!request.scheme.empty(), "a key has a scheme");
  out.clear();
  append_lower(out, request.scheme);
  out += "://";
  append_lower(out, without_default_port(request.host, request.scheme));
  out += request.path.empty() ? std::string_view("/") : request.path;
  append_query(out, request.query, policy);
}

std::optional<std::string> make_key(std::string_view url, const RouteCache& policy) {
  const size_t colon = url.find("://");
  if (colon == std::string_view::npos) return std::nullopt;
  RequestView request;
  request.scheme = url.substr(0, colon);
  if (!same_name(request.scheme, "http") && !same_name(request.scheme, "https")) return std::nullopt;
  std::string_view rest = url.substr(colon + 3);
  rest = rest.substr(0, rest.find('#'));
  const size_t host_end = std::min(rest.find_first_of("/?"), rest.size());
  request.host = rest.substr(0, host_end);
  if (request.host.empty()) return std::nullopt;
  rest.remove_prefix(host_end);
  const size_t question = rest.find('?');
  request.path = rest.substr(0, question);
  if (question != std::string_view::npos) request.query = rest.substr(question + 1);
  std::string key;
  make_key(request, policy, key);
  return key;
}

std::string other_scheme_key(std::string_view key) {
  const size_t colon = key.find("://");
  TIDEGATE_ASSERT(colon != std::string_view::npos, "a key begins with its scheme");
  const bool is_https = key.substr(0, colon) == "https";
  const std::string other = (is_https ? "http" : "https") + std::string(key.substr(colon));
  return make_key(other, RouteCache{}).value_or(other);
}

std::string canonical_vary(Fields response_fields) {
  std::vector<std::string> names;
  for_each_list_element(response_fields, "vary", [&](std::string_view name) {
    names.emplace_back();
    append_lower(names.back(), name);
  });
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  std::string out;
  for (const std::string& name : names) {
    if (!out.empty()) out += ',';
    out += name;
  }
  return out;
}

bool is_nominated(std::string_view vary, std::string_view field_name) {
  bool nominated = false;
  http1::for_each_element(vary, [&](std::string_view name) { nominated |= same_name(name, field_name); });
  return nominated;
}

void vary_values(std::string_view vary, const RequestView& request, std::string& out) {
  out.clear();
  http1::for_each_element(vary, [&](std::string_view name) {
    if (name == "accept-encoding") {
      append_codings(out, request.fields);
    } else {
      append_values(out, name, request.fields);
    }
    out += '\n';
  });
  // The branch follows the line of the last name. So the number of names tells where the branch begins.
  out += request.branch;
}

uint64_t variant_hash(const HashKeys& keys, std::string_view vary, std::string_view values) {
  if (vary.empty() && values.empty()) return 0;
  const uint64_t words[2] = {siphash13(keys.high, vary), siphash13(keys.low, values)};
  const uint64_t hash = siphash13_words(keys.high, words);
  return hash == 0 ? 1 : hash;
}

uint64_t tag_hash(const HashKeys& keys, std::string_view tag) {
  std::string lower;
  append_lower(lower, tag);
  return siphash13(keys.low, lower);
}

std::vector<uint64_t> response_tags(const HashKeys& keys, Fields response_fields) {
  std::vector<uint64_t> tags;
  const auto add = [&](std::string_view tag) {
    if (!tag.empty()) tags.push_back(tag_hash(keys, tag));
  };
  for (const http1::Field& field : response_fields) {
    if (same_name(field.name, "cache-tag")) http1::for_each_element(field.value, add);
    if (!same_name(field.name, "surrogate-key")) continue;
    std::string_view rest = field.value;
    while (!rest.empty()) {
      const size_t end = std::min(rest.find_first_of(" \t"), rest.size());
      add(rest.substr(0, end));
      rest.remove_prefix(std::min(end + 1, rest.size()));
    }
  }
  std::sort(tags.begin(), tags.end());
  tags.erase(std::unique(tags.begin(), tags.end()), tags.end());
  return tags;
}

}  // namespace tidegate::cache
