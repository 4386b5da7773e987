// SPDX-License-Identifier: Apache-2.0
// Capture files: reads pcap and pcapng with Ethernet frames, and writes pcapng. Pure functions of bytes
// (draft-ietf-opsawg-pcap, draft-ietf-opsawg-pcapng).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/result.h"

namespace tidegate::l4 {

struct CaptureRecord {
  uint64_t time_ns = 0;  // since 1970; 0 if the file does not say
  std::span<const uint8_t> bytes;
  uint32_t whole_bytes = 0;  // length of the frame on the wire; greater than `bytes` if the file has only its beginning
};

// The frames of a file in its order, at most `most` of them, as views of `file`. Returns an Error if it has neither
// format, is damaged before these frames, or has no Ethernet frames. Blocks of other kinds are skipped.
Result<std::vector<CaptureRecord>> read_capture(std::string_view file, size_t most);

class PcapngWriter {
 public:
  // `interfaces`: their names, ordered by number.
  explicit PcapngWriter(const std::vector<std::string>& interfaces);
  // `comment` is for people; it may be empty.
  void append(const CaptureRecord& record, uint32_t interface, std::string_view comment);
  const std::string& bytes() const { return out_; }
  std::string take() { return std::move(out_); }

 private:
  void block(uint32_t type, std::string_view body);
  std::string out_;
};

}  // namespace tidegate::l4
