// SPDX-License-Identifier: Apache-2.0
// Any bytes as a query: the answer must fit, be readable to its end, and answer only this query.
#include <cstdlib>
#include <vector>

#include "dns/query/query.h"
#include "tests/fuzz/dns/edge.h"

using namespace tidegate;
using namespace tidegate::dns;

namespace {

void require(bool held) {
  if (!held) std::abort();
}

size_t count_records(std::span<const uint8_t> message) {
  size_t records = 0;
  for_each_record(message, [&](const RecordView&) { ++records; });
  return records;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t bytes) {
  static const auto tables = fuzz::make_tables();
  static Worker worker(HashKey{1, 2});
  static const Client clients[] = {{*IpAddress::parse("10.1.2.3"), QueryTransport::udp},
                                   {*IpAddress::parse("2001:db8::9"), QueryTransport::tcp}};
  for (const Client& client : clients) {
    std::vector<uint8_t> out(client.transport == QueryTransport::udp ? kMaxUdpPayload : kMaxMessageBytes);
    const size_t size = answer({data, bytes}, out, client, *tables, worker);
    require(size <= out.size());
    if (size == 0) continue;
    require(size >= kHeaderBytes && out[0] == data[0] && out[1] == data[1]);
    require((load_u16(&out[header::kFlags]) & header::kResponse) != 0);
    const std::span<const uint8_t> message(out.data(), size);
    size_t announced = 0;
    for (size_t section = 0; section < 3; ++section) announced += load_u16(&message[header::kAnswers + 2 * section]);
    require(count_records(message) == announced);
  }
  return 0;
}
