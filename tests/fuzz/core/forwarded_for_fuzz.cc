// SPDX-License-Identifier: Apache-2.0
// X-Forwarded-For with several fields, one per line, compared with a naive twin that splits all of them first. The
// result must be the peer or an address in the list. It must never be an address to the left of an element that cannot
// be read or is not trusted.
#include <cstdint>
#include <cstdlib>
#include <string_view>
#include <vector>

#include "core/forwarded_for.h"

namespace {

using namespace tidegate;

std::vector<std::string_view> split(std::string_view text, char by) {
  std::vector<std::string_view> out;
  for (size_t at = 0;;) {
    const size_t end = text.find(by, at);
    out.push_back(text.substr(at, end == std::string_view::npos ? end : end - at));
    if (end == std::string_view::npos) return out;
    at = end + 1;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t bytes) {
  static const std::vector<Cidr> trusted{*Cidr::parse("10.0.0.0/8"), *Cidr::parse("fd10::/64")};
  static const IpAddress peer = *IpAddress::parse("10.0.0.1");
  const std::vector<std::string_view> fields = split({reinterpret_cast<const char*>(data), bytes}, '\n');
  ForwardedForWalk walk(peer, trusted);
  for (auto field = fields.rbegin(); field != fields.rend() && !walk.over(); ++field) walk.take(*field);

  std::vector<std::string_view> hops;
  for (const std::string_view field : fields) {
    for (const std::string_view hop : split(field, ',')) hops.push_back(hop);
  }
  IpAddress client = peer;
  for (size_t i = hops.size(); i-- > 0 && is_trusted_proxy(client, trusted);) {
    const auto hop = parse_forwarded_hop(hops[i]);
    if (!hop) break;
    client = *hop;
  }
  if (walk.client() != client) std::abort();
  const auto again = parse_forwarded_hop(client.to_string());
  if (!again || *again != client) std::abort();  // the text of the result must parse to the same address
  return 0;
}
