// SPDX-License-Identifier: Apache-2.0
#include "core/forwarded_for.h"

#include <algorithm>

namespace tidegate {
namespace {

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

bool is_port(std::string_view text) {
  return !text.empty() && text.size() <= 5 &&
         std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

}  // namespace

std::optional<IpAddress> parse_forwarded_hop(std::string_view element) {
  std::string_view text = trimmed(element);
  const bool bracketed = !text.empty() && text.front() == '[';
  std::string_view after;  // the rest after the address: nothing, or ":" and a port
  if (bracketed) {
    const size_t end = text.find(']');
    if (end == std::string_view::npos) return std::nullopt;
    after = text.substr(end + 1);
    text = text.substr(1, end - 1);
  } else if (const size_t colon = text.find(':'); colon != std::string_view::npos && colon == text.rfind(':')) {
    after = text.substr(colon);  // exactly one colon, so it is not an IPv6 address
    text = text.substr(0, colon);
  }
  if (!after.empty() && (after.front() != ':' || !is_port(after.substr(1)))) return std::nullopt;
  const std::optional<IpAddress> address = IpAddress::parse(text);
  if (!address || (bracketed && !address->is_v6())) return std::nullopt;
  return address->unmapped();
}

bool is_trusted_proxy(const IpAddress& address, const std::vector<Cidr>& trusted) {
  return std::any_of(trusted.begin(), trusted.end(), [&](const Cidr& network) { return network.contains(address); });
}

void ForwardedForWalk::take(std::string_view value) {
  // Quoted strings are not supported: a quote is only a byte that a client made up, and it must not hide the commas
  // after it.
  while (!over_) {
    const size_t comma = value.rfind(',');
    const bool last = comma == std::string_view::npos;
    const std::optional<IpAddress> hop = parse_forwarded_hop(last ? value : value.substr(comma + 1));
    if (!hop) {
      over_ = true;
      return;
    }
    client_ = *hop;
    over_ = !is_trusted_proxy(client_, trusted_);
    if (last) return;
    value = value.substr(0, comma);
  }
}

}  // namespace tidegate
