// SPDX-License-Identifier: Apache-2.0
// Messages of a hand-over: a message that was read is written back byte for byte, except for the padding of IPv4
// addresses.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "core/assert.h"
#include "core/hand_over.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tidegate;
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const Result<HandOverMessage> message = decode_hand_over(bytes);
  if (!message) {
    TIDEGATE_ASSERT(!message.error().message.empty(), "a refusal has a reason");
    return 0;
  }
  const std::string again = encode(*message, kHandOverFormats.newest);
  TIDEGATE_ASSERT(again.size() == bytes.size(), "a message is written as long as it was read");
  const Result<HandOverMessage> twice = decode_hand_over(again);
  TIDEGATE_ASSERT(twice && twice->text == message->text && twice->items.size() == message->items.size(),
                  "what is written can be read");
  TIDEGATE_ASSERT(encode(*twice, kHandOverFormats.newest) == again, "what is read twice is the same");
  return 0;
}
