// SPDX-License-Identifier: Apache-2.0
// The parameters of an HTTPDNS request: decoded, by name.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <string_view>

namespace tidegate::dns {

using Parameters = std::map<std::string, std::string, std::less<>>;

// The first of each name, at most kMaxHttpDnsParameters. A parameter that cannot be decoded counts as absent.
Parameters parse_parameters(std::string_view query);
// Empty: absent. Borrows the parameters.
std::string_view value_of(const Parameters& parameters, std::string_view name);

}  // namespace tidegate::dns
