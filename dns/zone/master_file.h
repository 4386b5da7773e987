// SPDX-License-Identifier: Apache-2.0
// Master files (RFC 1035 §5) read into flat records. Not on any query's path.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "conf/fault.h"
#include "dns/wire/wire.h"

namespace tidegate::dns {

constexpr uint32_t kDefaultTtlS = 3'600;  // used if neither $TTL nor an earlier record gives one

// A record of the text. `owner` and `rdata` are offsets into MasterFile::bytes.
struct MasterRecord {
  uint32_t owner = 0;  // lower-cased wire name
  uint32_t rdata = 0;  // wire form, uncompressed, case kept
  uint32_t ttl_s = 0;
  uint32_t at = 0;  // offset of its beginning in the text
  uint16_t rdata_bytes = 0;
  uint16_t type = 0;
  uint8_t owner_bytes = 0;
  bool states_ttl = false;  // the record states its TTL in the text
};

struct MasterFile {
  // Consecutive lines of the text that come from one file.
  struct Run {
    uint32_t first_line = 1;       // line number in the text
    uint32_t first_file_line = 1;  // the same line's number in the file
    uint32_t file = 0;             // index into `files`
  };
  struct Place {
    const std::string& file;
    uint32_t line, column;
    std::string_view line_text;
  };

  std::string_view text;  // includes the included files; borrowed
  std::vector<uint8_t> bytes;
  std::vector<MasterRecord> records;
  std::vector<std::string> files;  // the zone's file, then the files that it includes
  std::vector<Run> runs;           // in the text's order
  // Some record or directive was refused, so a missing record may still be in the text.
  bool incomplete = false;

  std::span<const uint8_t> owner(const MasterRecord& record) const {
    return std::span(bytes).subspan(record.owner, record.owner_bytes);
  }
  std::span<const uint8_t> rdata(const MasterRecord& record) const {
    return std::span(bytes).subspan(record.rdata, record.rdata_bytes);
  }
  // The file, line and column of an offset in the text. Use it for at most a few thousand calls.
  Place place(size_t at) const;
  // Adds a fault at an offset in the text. Returns false if no more faults are kept.
  bool refuse(size_t at, std::string_view cause, std::vector<Fault>& faults) const;

 private:
  mutable std::vector<size_t> line_starts_;  // lines of the text, filled on first use
};

// `apex` is the origin until the text sets another. Included files are inserted in the text, between the marks of
// conf/zone_includes.h. Adds every fault with its file, line and column, and reads everything else.
MasterFile read_master_file(const Name& apex, std::string_view file_name, std::string_view text,
                            std::vector<Fault>& faults);

}  // namespace tidegate::dns
