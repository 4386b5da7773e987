// SPDX-License-Identifier: Apache-2.0
#include "conf/acl.h"

#include <fmt/format.h>

#include "conf/limits.h"
#include "core/assert.h"

namespace tidegate {
namespace {

std::string_view trimmed_acl_line(std::string_view line) {
  constexpr std::string_view kBlanks = " \t\r";
  line = line.substr(0, line.find('#'));
  const size_t begin = line.find_first_not_of(kBlanks);
  if (begin == std::string_view::npos) return {};
  return line.substr(begin, line.find_last_not_of(kBlanks) + 1 - begin);
}

std::string why_no_network(std::string_view text) {
  constexpr size_t kShownBytes = 60;
  const size_t slash = text.find('/');
  const bool has_host_bits = slash != std::string_view::npos && IpAddress::parse(text.substr(0, slash)) &&
                             text.find_first_not_of("0123456789", slash + 1) == std::string_view::npos;
  return fmt::format("'{}' {}", text.substr(0, kShownBytes),
                     has_host_bits ? "has bits set after its prefix, or too long a prefix" : "is no network");
}

}  // namespace

std::optional<AclFileFault> read_acl_file(std::string_view text, size_t most, std::vector<Cidr>& networks) {
  uint32_t number = 0;
  size_t read = 0;
  while (!text.empty()) {
    ++number;
    const size_t end = text.find('\n');
    const std::string_view line = trimmed_acl_line(text.substr(0, end));
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    if (line.empty()) continue;
    const std::optional<Cidr> network = Cidr::parse(line);
    if (!network) return AclFileFault{number, why_no_network(line)};
    if (++read > most) return AclFileFault{number, fmt::format("more than {} networks", most)};
    networks.push_back(*network);
  }
  return std::nullopt;
}

std::vector<Cidr> networks_of(const Acl& acl) {
  std::vector<Cidr> networks = acl.networks;
  if (acl.file.bytes == nullptr) return networks;
  const std::optional<AclFileFault> fault = read_acl_file(*acl.file.bytes, kMaxAclNetworks, networks);
  TIDEGATE_ASSERT(!fault, "the file of a valid list was checked with the document");
  return networks;
}

}  // namespace tidegate
