// SPDX-License-Identifier: Apache-2.0
// Reply: writes one answer message into the caller's buffer, up to a limit, and remembers whether something did not
// fit.
#pragma once

#include <cstdint>
#include <span>

#include "dns/wire/request.h"
#include "dns/wire/wire.h"
#include "dns/zone/zone.h"

namespace tidegate::dns {

enum class Section : uint8_t { answer, authority, additional };

class Reply {
 public:
  // Copies the question. `limit` is for the whole message, at most out.size(). `reserved` bytes of it stay free for
  // OPT.
  Reply(std::span<uint8_t> out, const Request& request, size_t limit, size_t reserved);

  // Offset of the next record.
  size_t size() const { return size_; }
  // Adds a record set of the zone. `owner_at` is the offset of its owner's name in this message, `apex_at` of the
  // zone's apex.
  void add_rrset(Section section, const RrsetView& rrset, size_t owner_at, size_t apex_at);
  // Adds records that contain their own owners.
  void add_with_owners(Section section, const RrsetView& rrset, size_t apex_at);
  // Adds one record with complete data.
  void add_record(Section section, size_t owner_at, uint16_t type, uint32_t ttl_s, std::span<const uint8_t> rdata);

  // True if this many more bytes of records fit.
  bool fits(size_t bytes) const { return !overflowed_ && size_ + bytes <= records_limit_; }
  // The message so far, for reading names.
  std::span<const uint8_t> written() const { return {out_, size_}; }
  bool overflowed() const { return overflowed_; }
  void set_authoritative(bool authoritative) { authoritative_ = authoritative; }
  // Completes the header and OPT (opt_bytes 0: none was written). Returns the message's length.
  size_t finish(Rcode rcode);
  size_t finish_with_opt(Rcode rcode, const OptReply& opt, std::string_view nsid);

 private:
  bool reserve(size_t bytes) {
    if (size_ + bytes > records_limit_) overflowed_ = true;
    return !overflowed_;
  }
  void write_header(Rcode rcode);

  uint8_t* out_;
  const Request& request_;
  size_t size_;
  size_t limit_;
  size_t records_limit_;
  uint16_t counts_[3] = {0, 0, 0};
  bool overflowed_ = false;
  bool authoritative_ = false;
};

}  // namespace tidegate::dns
