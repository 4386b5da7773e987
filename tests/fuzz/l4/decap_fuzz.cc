// SPDX-License-Identifier: Apache-2.0
// Any input of a tunnel socket. The first byte chooses the kind of tunnel, the rest is the datagram on a heap buffer of
// its exact size. A packet that is found must be within the datagram and have the version and length in its header.
#include <algorithm>
#include <cstdlib>
#include <memory>

#include "l4/decap/unwrap.h"
#include "l4/wire.h"

using namespace tidegate::l4;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const size_t bytes = size - 1;
  const std::unique_ptr<uint8_t[]> datagram(new uint8_t[bytes]);
  std::copy(data + 1, data + size, datagram.get());
  Unwrapped inside;
  switch (data[0] % 4) {
    case 0:
      inside = unwrap_gue(datagram.get(), bytes);
      break;
    case 1:
      inside = unwrap_ipip(datagram.get(), bytes, 4);
      break;
    case 2:
      inside = unwrap_ipip(datagram.get(), bytes, 41);
      break;
    default: {
      const size_t header = outer_ip4_bytes(datagram.get(), bytes);
      if (header > bytes) abort();
      inside = unwrap_ipip(datagram.get() + header, bytes - header, 4);
    }
  }
  if (inside.reason != DecapReason::none) {
    if (inside.reason >= DecapReason::count_ || inside.packet != nullptr) abort();
    return 0;
  }
  const uint8_t* packet = inside.packet;
  if (packet < datagram.get() || packet + inside.bytes > datagram.get() + bytes) abort();
  const bool v4 = packet[0] >> 4 == 4;
  if (!v4 && packet[0] >> 4 != 6) abort();
  if (inside.bytes != (v4 ? load_be16(packet + 2) : 40u + load_be16(packet + 4))) abort();
  inner_destination(packet);
  return 0;
}
