// SPDX-License-Identifier: Apache-2.0
// Master files (RFC 1035 §5) read into flat records. Not on any query's path.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/result.h"
#include "dns/wire/wire.h"

namespace tidegate::dns {

// A record as the text says it; offsets are into MasterFile::bytes.
struct MasterRecord {
  uint32_t owner = 0;  // lower-cased wire name
  uint32_t rdata = 0;  // wire form, uncompressed, case kept
  uint32_t ttl_s = 0;
  uint32_t line = 0;
  uint16_t rdata_bytes = 0;
  uint16_t type = 0;
  uint8_t owner_bytes = 0;
  uint8_t file = 0;  // index into MasterFile::files
};

struct MasterFile {
  std::vector<uint8_t> bytes;
  std::vector<MasterRecord> records;
  std::vector<std::string> files;  // the zone's, then those that it includes

  std::span<const uint8_t> owner(const MasterRecord& record) const {
    return std::span(bytes).subspan(record.owner, record.owner_bytes);
  }
  std::span<const uint8_t> rdata(const MasterRecord& record) const {
    return std::span(bytes).subspan(record.rdata, record.rdata_bytes);
  }
};

// `apex` is the origin until the text sets another. Included files stand in the text, between the marks of
// conf/zone_includes.h. The Error names file, line and cause; the first fault stops.
Result<MasterFile> read_master_file(const Name& apex, std::string_view file_name, std::string_view text);

}  // namespace tidegate::dns
