// SPDX-License-Identifier: Apache-2.0
// Any input of a peer's socket. If the first byte is odd, the datagram gets a valid code, so that the fuzzer gets past
// it. The reported values must be bounded, and the same datagram must not be accepted twice.
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "core/crypto.h"
#include "l4/share/datagram.h"

using namespace tidegate::l4;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  static const std::string key = share_key("secret", *tidegate::Endpoint::parse("192.0.2.1:7000"));
  const size_t bytes = size - 1;
  const std::unique_ptr<uint8_t[]> datagram(new uint8_t[bytes]);
  std::memcpy(datagram.get(), data + 1, bytes);
  ShareClock now{1'800'000'000'000, 5'000};
  if ((data[0] & 1) != 0 && bytes >= kShareHeadBytes + kShareMacBytes) {
    const std::string_view before(reinterpret_cast<const char*>(datagram.get()), bytes - kShareMacBytes);
    std::memcpy(datagram.get() + before.size(), tidegate::hmac_sha256(key, before).data(), kShareMacBytes);
    // Uses the datagram's own sending time, so that the fuzzer need not guess it.
    now.wall_ms = 0;
    for (size_t i = 24; i < 32; ++i) now.wall_ms = now.wall_ms << 8 | datagram[i];
  }
  ReplayGuard guard;
  const std::unique_ptr<SharedFlow[]> flows(new SharedFlow[kMostSharedFlows]);
  const OpenedFlows opened = open_flows(key, datagram.get(), bytes, now, guard, flows.get());
  if (opened.fault >= ShareFault::count_ || opened.count > kMostSharedFlows) abort();
  if (opened.fault != ShareFault::none) return 0;
  if (open_flows(key, datagram.get(), bytes, now, guard, flows.get()).fault != ShareFault::replayed) abort();
  // The datagram must be written as it was read.
  uint8_t again[kMostShareBytes];
  ShareHead head;
  uint64_t* const words[] = {&head.epoch, &head.sequence, &head.sent_ms};
  for (size_t word = 0; word < 3; ++word) {
    for (size_t i = 0; i < 8; ++i) *words[word] = *words[word] << 8 | datagram[8 + word * 8 + i];
  }
  const size_t written = seal_flows(key, head, flows.get(), opened.count, again);
  if (written != bytes || std::memcmp(again, datagram.get(), bytes) != 0) abort();
  return 0;
}
