// SPDX-License-Identifier: Apache-2.0
// HpackDecoder reads what nghttp2's decoder reads, and refuses what it refuses, however the blocks are cut. Input:
// pairs of a length and a block of so many bytes; the highest bit of the length says that its bytes come one by one.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "tests/unit/l7/hpack_reader.h"

using namespace tidegate::l7;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string_view input(reinterpret_cast<const char*>(data), size);
  HpackDecoder decoder;
  NgHttp2Reader other;
  while (!input.empty()) {
    const auto first = static_cast<uint8_t>(input.front());
    input.remove_prefix(1);
    const std::string_view block = input.substr(0, first & 0x7f);
    input.remove_prefix(block.size());
    const auto read = read_block(decoder, block, (first & 0x80) != 0 ? 1 : SIZE_MAX);
    if (read != other.read(block)) std::abort();
    if (!read) break;
    if (decoder.table_bytes() != other.table_bytes()) std::abort();
  }
  return 0;
}
