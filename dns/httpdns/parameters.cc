// SPDX-License-Identifier: Apache-2.0
#include "dns/httpdns/parameters.h"

#include <algorithm>

#include "core/http1.h"
#include "dns/limits.h"

namespace tidegate::dns {

Parameters parse_parameters(std::string_view query) {
  Parameters parameters;
  while (!query.empty() && parameters.size() < kMaxHttpDnsParameters) {
    const std::string_view pair = query.substr(0, query.find('&'));
    query.remove_prefix(std::min(pair.size() + 1, query.size()));
    const std::string name(pair.substr(0, pair.find('=')));
    if (const auto value = http1::query_parameter(pair, name)) parameters.emplace(name, *value);
  }
  return parameters;
}

std::string_view value_of(const Parameters& parameters, std::string_view name) {
  const auto found = parameters.find(name);
  return found == parameters.end() ? std::string_view() : std::string_view(found->second);
}

}  // namespace tidegate::dns
