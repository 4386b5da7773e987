// SPDX-License-Identifier: Apache-2.0
// parse_proxy_header over any bytes. A header that was read is written again and must read the same. Each beginning of
// it must be incomplete, so that no header is ever cut short.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "l7/limits.h"
#include "l7/wire/proxy_protocol.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tidegate;
  using namespace tidegate::l7;
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const ProxyHeader header = parse_proxy_header(bytes);
  if (header.status != ProxyHeader::Status::ok) return 0;
  if (header.bytes == 0 || header.bytes > size || header.bytes > kProxyHeaderBytes) std::abort();
  for (size_t i = 0; i < header.bytes; ++i) {
    if (parse_proxy_header(bytes.substr(0, i)).status != ProxyHeader::Status::incomplete) std::abort();
  }
  if (!header.addresses) return 0;
  const ProxyHeader again = parse_proxy_header(write_proxy_header(ProxyProtocol::v2, header.addresses));
  if (again.status != ProxyHeader::Status::ok || !again.addresses) std::abort();
  if (again.addresses->source != header.addresses->source) std::abort();
  if (again.addresses->destination != header.addresses->destination) std::abort();
  return 0;
}
