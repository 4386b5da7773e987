// SPDX-License-Identifier: Apache-2.0
// A response head, as the answer to GET and to HEAD.
#include <cstdint>
#include <cstdlib>
#include <memory>

#include "core/http1.h"

namespace {

using namespace tidegate::http1;

void require(bool holds) {
  if (!holds) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::unique_ptr<char[]> storage(new char[size]);
  std::copy(data, data + size, storage.get());
  const std::string_view bytes(storage.get(), size);
  static Head head;
  for (const bool to_head : {false, true}) {
    size_t scanned = 0;
    const ParseResult result = parse_response(bytes, {}, scanned, to_head, head);
    if (result.status != Status::complete) continue;
    require(result.consumed <= size && head.status >= 100 && head.status <= 999);
    require(!to_head || head.framing == Framing::none);
    require(head.framing != Framing::until_close || !head.keep_alive);
    for (const Field& field : head) require(is_token(field.name) && is_field_value(field.value));
  }
  return 0;
}
