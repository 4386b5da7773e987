// SPDX-License-Identifier: Apache-2.0
#include "dns/httpdns/parameters.h"

#include <algorithm>

#include "core/percent.h"
#include "dns/limits.h"

namespace tidegate::dns {
namespace {

constexpr size_t kUsualParameters = 8;

bool is_encoded(std::string_view text) {
  return text.find('%') != std::string_view::npos || text.find('+') != std::string_view::npos;
}

bool name_before(const Parameters::Entry& entry, std::string_view name) { return entry.first < name; }

}  // namespace

bool Parameters::add(std::string_view name, std::string value) {
  if (entries_.empty()) entries_.reserve(kUsualParameters);
  const auto at = std::lower_bound(entries_.begin(), entries_.end(), name, name_before);
  if (at != entries_.end() && at->first == name) return false;
  entries_.emplace(at, name, std::move(value));
  return true;
}

const std::string* Parameters::find(std::string_view name) const {
  const auto at = std::lower_bound(entries_.begin(), entries_.end(), name, name_before);
  return at == entries_.end() || at->first != name ? nullptr : &at->second;
}

Parameters parse_parameters(std::string_view query) {
  Parameters parameters;
  while (!query.empty() && parameters.size() < kMaxHttpDnsParameters) {
    const std::string_view pair = query.substr(0, query.find('&'));
    query.remove_prefix(std::min(pair.size() + 1, query.size()));
    const std::string_view name = pair.substr(0, pair.find('='));
    if (pair.empty() || is_encoded(name)) continue;
    auto value = percent_decode(pair.substr(std::min(name.size() + 1, pair.size())), true);
    if (value) parameters.add(name, *std::move(value));
  }
  return parameters;
}

std::string_view value_of(const Parameters& parameters, std::string_view name) {
  const std::string* const found = parameters.find(name);
  return found == nullptr ? std::string_view() : std::string_view(*found);
}

}  // namespace tidegate::dns
