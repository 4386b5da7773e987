// SPDX-License-Identifier: Apache-2.0
// Any bytes as a frame: either it is refused for a reason, or it has a query inside the frame. Then the answer must go
// back to the sender with correct lengths and checksums.
#include <algorithm>
#include <cstdlib>
#include <vector>

#include "dns/query/query.h"
#include "dns/xdp/frame.h"
#include "tests/fuzz/dns/edge.h"

using namespace tidegate;
using namespace tidegate::dns;

namespace {

constexpr size_t kEthernetBytes = 14, kUdpBytes = 8;

void require(bool held) {
  if (!held) std::abort();
}

// The sum of RFC 1071, computed by its definition.
uint32_t naive_sum(std::span<const uint8_t> bytes, uint32_t sum) {
  for (size_t i = 0; i < bytes.size(); i += 2) {
    sum += static_cast<uint32_t>(bytes[i] << 8) + (i + 1 < bytes.size() ? bytes[i + 1] : 0U);
  }
  while (sum > 0xffff) sum = (sum >> 16) + (sum & 0xffff);
  return sum;
}

void complete_checksum(std::vector<uint8_t>& frame) {
  const bool v4 = frame[kEthernetBytes] >> 4 == 4;
  const size_t source = kEthernetBytes + (v4 ? 12 : 8), udp = kEthernetBytes + (v4 ? 20 : 40);
  const size_t udp_bytes = load_u16(&frame[udp + 4]);
  store_u16(&frame[udp + 6], 0);
  const std::span<const uint8_t> covered = std::span<const uint8_t>(frame).subspan(source, udp - source + udp_bytes);
  const auto checksum = static_cast<uint16_t>(~naive_sum(covered, 17 + static_cast<uint32_t>(udp_bytes)));
  store_u16(&frame[udp + 6], checksum == 0 ? 0xffff : checksum);
}

void check_answer(std::span<const uint8_t> frame, const std::vector<uint8_t>& before, size_t headers_bytes) {
  const bool v4 = frame[kEthernetBytes] >> 4 == 4;
  const size_t udp = headers_bytes - kUdpBytes, address_bytes = v4 ? 4 : 16, source = udp - 2 * address_bytes;
  require(std::equal(frame.begin(), frame.begin() + 6, before.begin() + 6));
  require(std::equal(frame.begin() + 6, frame.begin() + 12, before.begin()));
  const auto at = [](auto& bytes, size_t offset) { return bytes.begin() + static_cast<ptrdiff_t>(offset); };
  require(std::equal(at(frame, source), at(frame, source + address_bytes), at(before, source + address_bytes)));
  require(std::equal(at(frame, source + address_bytes), at(frame, udp), at(before, source)));
  require(load_u16(&frame[udp]) == load_u16(&before[udp + 2]) && load_u16(&frame[udp + 2]) == load_u16(&before[udp]));
  const size_t udp_bytes = load_u16(&frame[udp + 4]);
  require(udp + udp_bytes == frame.size() && load_u16(&frame[udp + 6]) != 0);
  if (v4) require(naive_sum(frame.subspan(kEthernetBytes, 20), 0) == 0xffff);
  require(naive_sum(frame.subspan(source), 17 + static_cast<uint32_t>(udp_bytes)) == 0xffff);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t bytes) {
  static const auto tables = fuzz::make_tables();
  static Worker worker(HashKey{1, 2});
  std::vector<uint8_t> before(data, data + bytes);  // a buffer of its exact size, so that a read past the end is found
  QueryFrame query;
  FrameFault fault = parse_query_frame(before, query);
  if (fault == FrameFault::wrong_udp_checksum) {  // everything except the checksum is verified before the checksum
    complete_checksum(before);
    fault = parse_query_frame(before, query);
    require(fault != FrameFault::wrong_udp_checksum);
  }
  require(static_cast<size_t>(fault) <= kFrameFaultCount);
  if (fault != FrameFault::none) return 0;
  require(query.headers_bytes + query.query_bytes <= bytes);
  std::vector<uint8_t> reply(kMaxUdpPayload);
  const std::span<const uint8_t> message(before.data() + query.headers_bytes, query.query_bytes);
  const size_t size = answer(message, reply, {query.client, QueryTransport::udp}, *tables, worker);
  if (size == 0) return 0;
  std::vector<uint8_t> frame(before);
  frame.resize(query.headers_bytes + std::max(size, query.query_bytes));
  std::copy_n(reply.begin(), size, frame.begin() + static_cast<ptrdiff_t>(query.headers_bytes));
  const size_t frame_bytes = turn_into_answer(frame.data(), query, size, 1);
  require(frame_bytes == query.headers_bytes + size);
  check_answer({frame.data(), frame_bytes}, before, query.headers_bytes);
  return 0;
}
