// SPDX-License-Identifier: Apache-2.0
// Any answers of a backend to a probe, and any text in a document that a probe sends: no crash, and the bytes can be
// read back.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "conf/byte_text.h"
#include "control/health/probe_dns.h"
#include "control/health/probe_grpc.h"
#include "core/assert.h"

using namespace tidegate;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const uint16_t id = size < 2 ? 0 : static_cast<uint16_t>(data[0] << 8 | data[1]);
  (void)dns_probe_fault(text, id, "NOERROR");
  (void)grpc_health_fault(text);
  (void)bytes_of_text(text);
  const Result<std::string> again = bytes_of_text(text_of_bytes(text));
  TIDEGATE_ASSERT(again && *again == text, "bytes read back");
  return 0;
}
