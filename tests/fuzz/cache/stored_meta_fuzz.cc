// SPDX-License-Identifier: Apache-2.0
// Records as they come from disk. The checksum is corrected first, so that the decoder behind it is reached. What
// decodes must encode to the same bytes again.
#include <cstdlib>
#include <cstring>
#include <string>

#include "cache/disk/crc32c.h"
#include "cache/disk/format.h"

using namespace tidegate::cache;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t bytes) {
  static const std::string name = meta_key({1, 2}, 3);
  std::string record(reinterpret_cast<const char*>(data), bytes);
  (void)decode_meta(name, record);
  if (record.size() < sizeof(uint32_t)) return 0;
  const uint32_t crc = crc32c(std::string_view(record).substr(sizeof(uint32_t)), crc32c(name));
  std::memcpy(record.data(), &crc, sizeof crc);
  auto meta = decode_meta(name, record);
  if (!meta) return 0;
  if (meta->head_apart) return (void)attach_head(*meta, record), 0;
  std::string apart;
  const std::string again = encode_meta(name, *meta->head, meta->disk_generation, meta->received_ms, apart);
  const auto twice = decode_meta(name, again);
  if (!twice || twice->head->key != meta->head->key || twice->head->tags != meta->head->tags ||
      twice->head->spelt_names != meta->head->spelt_names) {
    std::abort();
  }
  return 0;
}
