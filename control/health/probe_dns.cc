// SPDX-License-Identifier: Apache-2.0
#include "control/health/probe_dns.h"

#include <fmt/format.h>

#include <array>
#include <utility>

namespace tidegate {

namespace {

constexpr size_t kHeaderBytes = 12;
constexpr uint16_t kRecursionDesired = 0x0100;  // resolvers may refuse queries without it
constexpr std::array<const char*, 6> kRcodes = {"NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED"};
constexpr std::pair<std::string_view, uint16_t> kTypes[] = {{"A", 1},   {"NS", 2},   {"CNAME", 5}, {"SOA", 6},
                                                            {"MX", 15}, {"TXT", 16}, {"AAAA", 28}, {"HTTPS", 65}};

void append16(std::string& out, uint16_t value) {
  out += static_cast<char>(value >> 8);
  out += static_cast<char>(value & 0xff);
}

}  // namespace

std::string dns_probe_query(uint16_t id, std::string_view name, std::string_view type) {
  std::string query;
  for (const uint16_t word : {id, kRecursionDesired, uint16_t{1}, uint16_t{0}, uint16_t{0}, uint16_t{0}})
    append16(query, word);
  while (!name.empty() && name != ".") {
    const size_t dot = name.find('.');
    const std::string_view label = name.substr(0, dot);
    query += static_cast<char>(label.size());
    query += label;
    if (dot == std::string_view::npos) break;
    name.remove_prefix(dot + 1);
  }
  query += '\0';
  uint16_t number = 1;
  for (const auto& [known, value] : kTypes) {
    if (known == type) number = value;
  }
  append16(query, number);
  append16(query, 1);  // IN
  return query;
}

std::optional<std::string> dns_probe_fault(std::string_view answer, uint16_t id, std::string_view expected_rcode) {
  const auto byte = [&](size_t at) { return static_cast<uint8_t>(answer[at]); };
  if (answer.size() < kHeaderBytes || byte(0) != id >> 8 || byte(1) != (id & 0xff)) return std::nullopt;
  if ((byte(2) & 0x80) == 0) return std::nullopt;  // the message is a query
  const uint8_t rcode = byte(3) & 0x0f;
  const std::string got = rcode < kRcodes.size() ? kRcodes[rcode] : fmt::format("code {}", rcode);
  return got == expected_rcode ? std::string() : fmt::format("answers {}, expected {}", got, expected_rcode);
}

}  // namespace tidegate
