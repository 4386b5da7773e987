// SPDX-License-Identifier: Apache-2.0
#include "dns/httpdns/resolve.h"

#include <fmt/format.h>

#include <algorithm>

#include "dns/wire/request.h"

namespace tidegate::dns {
namespace {

Resolved::Kind kind_of(Rcode rcode, bool has_answer) {
  switch (rcode) {
    case Rcode::noerror:
      return has_answer ? Resolved::Kind::found : Resolved::Kind::no_data;
    case Rcode::nxdomain:
      return Resolved::Kind::no_name;
    case Rcode::refused:
    case Rcode::yxdomain:
      return Resolved::Kind::foreign;
    default:
      return Resolved::Kind::failed;
  }
}

}  // namespace

bool is_host(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_' ||
           c == '.';
  });
}

std::vector<std::string_view> split_list(std::string_view list) {
  std::vector<std::string_view> parts;
  for (size_t start = 0; start <= list.size();) {
    const size_t end = std::min(list.find(',', start), list.size());
    parts.push_back(list.substr(start, end - start));
    start = end + 1;
  }
  return parts;
}

Families wanted_families(std::string_view list) {
  Families families{false, false};
  for (const std::string_view family : split_list(list)) {
    families.v4 = families.v4 || family == "4";
    families.v6 = families.v6 || family == "6";
  }
  return families.v4 || families.v6 ? families : Families{};
}

Resolved resolve_host(std::string_view host, uint16_t type, const IpAddress& client, const HttpDnsContext& context) {
  Resolved resolved;
  const auto name = Name::from_text(host);
  if (!is_host(host) || !name) {
    resolved.kind = Resolved::Kind::malformed;
    return resolved;
  }
  std::array<uint8_t, kHeaderBytes + Name::kMaxBytes + 4> query;
  const size_t query_bytes = write_query(query, name->wire(), type);
  const size_t bytes = answer({query.data(), query_bytes}, context.scratch, {client, QueryTransport::http},
                              context.tables, context.worker);
  const auto message = std::span<const uint8_t>(context.scratch).first(bytes);
  for_each_record(message, [&](const RecordView& record) {
    if (record.section != RecordView::Section::answer) return;
    IpAddress address;
    address.family = type == rrtype::kA ? IpAddress::Family::v4 : IpAddress::Family::v6;
    if (record.type != type || record.rdata.size() != address.size()) return;
    std::memcpy(address.bytes.data(), record.rdata.data(), address.size());
    resolved.addresses.push_back(address);
  });
  const auto rcode = static_cast<Rcode>(load_u16(&message[header::kFlags]) & header::kRcodeMask);
  resolved.kind = kind_of(rcode, !resolved.addresses.empty());
  resolved.ttl_s = freshness_s(message);
  return resolved;
}

std::string json_members(const std::vector<IpAddress>& addresses) {
  std::string members;
  for (const IpAddress& address : addresses) {
    members += fmt::format("{}\"{}\"", members.empty() ? "" : ",", address.to_string());
  }
  return members;
}

}  // namespace tidegate::dns
