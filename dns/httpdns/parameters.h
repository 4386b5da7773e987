// SPDX-License-Identifier: Apache-2.0
// The parameters of an HTTPDNS request: decoded, by name.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace tidegate::dns {

// Sorted by name, each name once. A vector, because a request has few of them.
class Parameters {
 public:
  using Entry = std::pair<std::string, std::string>;

  // Returns false, and changes nothing, if the name is already there.
  bool add(std::string_view name, std::string value);
  // Null if absent.
  const std::string* find(std::string_view name) const;
  size_t size() const { return entries_.size(); }
  std::vector<Entry>::const_iterator begin() const { return entries_.begin(); }
  std::vector<Entry>::const_iterator end() const { return entries_.end(); }

 private:
  std::vector<Entry> entries_;
};

// The first parameter of each name, at most kMaxHttpDnsParameters. A parameter counts as absent if it cannot be
// decoded, or if its name is encoded.
Parameters parse_parameters(std::string_view query);
// Empty if absent. Borrows the parameters.
std::string_view value_of(const Parameters& parameters, std::string_view name);

}  // namespace tidegate::dns
