// SPDX-License-Identifier: Apache-2.0
// HpackEncoder: nghttp2's decoder reads what was sent, whatever the fields and the peer's limits are. Input: steps of
// one byte and what belongs to it. 0xff: a new limit of the peer's table, in two bytes. 0xfe: the block ends. Otherwise
// a field: the byte chooses a name, the next one the length of the value, which follows, 0 to 3 times.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "tests/unit/l7/hpack_peer.h"

using namespace tidegate::l7;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static constexpr std::string_view kNames[] = {":status",       ":path", "cookie", "set-cookie",
                                                "authorization", "date",  "via",    "age",
                                                "content-type",  "x-own", "x-other"};
  std::string_view input(reinterpret_cast<const char*>(data), size);
  const auto take = [&](size_t bytes) {
    const std::string_view taken = input.substr(0, bytes);
    input.remove_prefix(taken.size());
    return taken;
  };
  const auto take_byte = [&] {
    const std::string_view taken = take(1);
    return taken.empty() ? size_t{0} : size_t{static_cast<uint8_t>(taken.front())};
  };
  HpackEncoder encoder;
  HpackPeer peer;
  HpackPeer::Fields fields;
  Indexing indexing = Indexing::by_name;
  const auto send = [&] {
    if (peer.sent(encoder, fields, indexing) != fields) std::abort();
    fields.clear();
    indexing = Indexing::by_name;
  };
  while (!input.empty()) {
    const size_t step = take_byte();
    if (step == 0xff) {
      const size_t high = take_byte();
      peer.limit(encoder, high << 8 | take_byte());
    } else if (step == 0xfe) {
      send();
    } else {
      const size_t kind = step % (std::size(kNames) + 4);
      if (step >= 0xf0) indexing = Indexing::name_only;
      const std::string_view once = take(take_byte());
      std::string value;
      for (size_t times = step / 64; times > 0; --times) value += once;
      const bool known = kind < std::size(kNames);
      fields.emplace_back(known ? std::string(kNames[kind]) : "n" + std::string(once.substr(0, kind)), value);
    }
  }
  send();
  return 0;
}
