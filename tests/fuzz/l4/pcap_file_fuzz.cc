// SPDX-License-Identifier: Apache-2.0
// A capture file on a heap buffer of its exact size. Each frame must lie within the file.
#include <algorithm>
#include <cstdlib>
#include <memory>

#include "l4/pcap_file.h"

using namespace tidegate::l4;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::unique_ptr<char[]> file(new char[size]);
  std::copy(data, data + size, file.get());
  const auto read = read_capture({file.get(), size}, 1'000);
  if (!read) return 0;
  const auto* begin = reinterpret_cast<const uint8_t*>(file.get());
  for (const CaptureRecord& each : *read) {
    if (each.bytes.empty()) continue;
    if (each.bytes.data() < begin || each.bytes.data() + each.bytes.size() > begin + size) abort();
    if (each.whole_bytes < each.bytes.size()) abort();
  }
  return 0;
}
