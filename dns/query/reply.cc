// SPDX-License-Identifier: Apache-2.0
#include "dns/query/reply.h"

namespace tidegate::dns {

Reply::Reply(std::span<uint8_t> out, const Request& request, size_t limit, size_t reserved)
    : out_(out.data()),
      request_(request),
      size_(request.question_end != 0 ? request.question_end : kHeaderBytes),
      limit_(limit),
      records_limit_(limit - reserved) {
  // The question is returned byte for byte, because resolvers hide entropy in the case of its letters.
  if (request.question_end != 0) {
    std::memcpy(out_ + kHeaderBytes, &request.message[kHeaderBytes], request.question_end - kHeaderBytes);
  }
}

void Reply::add_rrset(Section section, const RrsetView& rrset, size_t owner_at, size_t apex_at) {
  if (!reserve(rrset.wire.size())) return;
  uint8_t* start = out_ + size_;
  add_with_owners(section, rrset, apex_at);
  if (owner_at == kQnameOffset) return;
  uint8_t* record = start;
  for (uint16_t i = 0; i < rrset.records; ++i) {
    store_u16(record, static_cast<uint16_t>(kPointerBits | owner_at));
    record += 12 + load_u16(record + 10);
  }
}

void Reply::add_with_owners(Section section, const RrsetView& rrset, size_t apex_at) {
  if (!reserve(rrset.wire.size())) return;
  uint8_t* start = out_ + size_;
  std::memcpy(start, rrset.wire.data(), rrset.wire.size());
  for (size_t i = 0; i < rrset.apex_pointer_count(); ++i) {
    store_u16(start + rrset.apex_pointer(i), static_cast<uint16_t>(kPointerBits | apex_at));
  }
  size_ += rrset.wire.size();
  counts_[static_cast<size_t>(section)] = static_cast<uint16_t>(counts_[static_cast<size_t>(section)] + rrset.records);
}

void Reply::add_record(Section section, size_t owner_at, uint16_t type, uint32_t ttl_s,
                       std::span<const uint8_t> rdata) {
  if (!reserve(12 + rdata.size())) return;
  uint8_t* at = out_ + size_;
  store_u16(at, static_cast<uint16_t>(kPointerBits | owner_at));
  store_u16(at + 2, type);
  store_u16(at + 4, kClassIn);
  store_u32(at + 6, ttl_s);
  store_u16(at + 10, static_cast<uint16_t>(rdata.size()));
  std::memcpy(at + 12, rdata.data(), rdata.size());
  size_ += 12 + rdata.size();
  ++counts_[static_cast<size_t>(section)];
}

void Reply::write_header(Rcode rcode) {
  if (overflowed_) {  // RFC 2181 §9: a partial RRset is useless; the client comes again over TCP
    size_ = request_.question_end;
    counts_[0] = counts_[1] = counts_[2] = 0;
  }
  std::memcpy(out_, request_.message.data(), 2);  // ID
  const uint16_t kept = header::kOpcodeMask | header::kRecursionDesired | header::kCheckingDisabled;
  store_u16(out_ + header::kFlags, static_cast<uint16_t>(header::kResponse | (request_.flags & kept) |
                                                         (authoritative_ ? header::kAuthoritative : 0) |
                                                         (overflowed_ ? header::kTruncated : 0) |
                                                         (static_cast<uint16_t>(rcode) & header::kRcodeMask)));
  store_u16(out_ + header::kQuestions, request_.question_end != 0 ? 1 : 0);
  for (size_t i = 0; i < 3; ++i) store_u16(out_ + header::kAnswers + 2 * i, counts_[i]);
}

size_t Reply::finish(Rcode rcode) {
  write_header(rcode);
  return size_;
}

size_t Reply::finish_with_opt(Rcode rcode, const OptReply& opt, std::string_view nsid) {
  write_header(rcode);
  size_ += write_opt(out_ + size_, limit_ - size_, request_.edns, opt, rcode, nsid);
  store_u16(out_ + header::kAdditionals, static_cast<uint16_t>(counts_[2] + 1));
  return size_;
}

}  // namespace tidegate::dns
